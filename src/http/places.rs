//! Places for connections: so many in all, and so many for one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use super::server::Limits;

/// The places of one listener.
#[derive(Default)]
pub(super) struct Places {
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
}

impl Places {
    /// Waits until there is a place. Only one task may ask: the place is not
    /// held until [`Places::take`].
    pub(super) async fn free(&self, limits: &mut watch::Receiver<Limits>) {
        while self.lock().all >= limits.borrow_and_update().connections {
            tokio::select! {
                () = self.freed.notified() => {}
                // Without a sender the limits stay as they are.
                Ok(()) = limits.changed() => {}
            }
        }
    }

    /// Takes a place, unless the address has its share already.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr, share: usize) -> Option<Place> {
        let network = network(address);
        let mut taken = self.lock();
        let here = taken.by_network.entry(network).or_default();
        if share > 0 && *here >= share {
            return None;
        }
        *here += 1;
        taken.all += 1;
        Some(Place {
            places: Arc::clone(self),
            network,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        // Counts that change together, with nothing between that can panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place; free again when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    network: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(here) = taken.by_network.get_mut(&self.network) {
            *here -= 1;
            if *here == 0 {
                taken.by_network.remove(&self.network);
            }
        }
        drop(taken);
        self.places.freed.notify_one();
    }
}

/// Who shares: an address of IPv4, or the /64 that one customer has of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let bits = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_has_its_share_leaves_places_for_others() {
        let places = Arc::new(Places::default());
        let take = |address: &str| places.take(address.parse().unwrap(), 2);
        let (first, _second) = (take("192.0.2.1"), take("::ffff:192.0.2.1").unwrap());
        assert!(first.is_some() && take("192.0.2.1").is_none());
        assert!(take("192.0.2.2").is_some());
        let _net = (take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap());
        assert!(take("2001:db8::3").is_none() && take("2001:db8:0:1::3").is_some());
        drop(first);
        assert!(take("192.0.2.1").is_some());
        let places = Arc::new(Places::default());
        let all: Vec<_> = (0..9)
            .map(|_| places.take(IpAddr::from([1; 4]), 0))
            .collect();
        assert!(all.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn who_waits_for_a_place_gets_the_next_one() {
        let places = Arc::new(Places::default());
        let limits = |connections| Limits {
            connections,
            ..Limits::default()
        };
        let (raise, mut current) = watch::channel(limits(1));
        let held = places.take(IpAddr::from([1; 4]), 0);
        let waits = |current: &mut watch::Receiver<Limits>| {
            let places = Arc::clone(&places);
            let mut current = current.clone();
            tokio::spawn(async move { places.free(&mut current).await })
        };
        let waiting = waits(&mut current);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        waiting.await.unwrap();
        let _held = places.take(IpAddr::from([1; 4]), 0);
        let waiting = waits(&mut current);
        tokio::task::yield_now().await;
        raise.send_replace(limits(2));
        waiting.await.unwrap();
        drop(raise);
        places.free(&mut current).await;
    }
}
