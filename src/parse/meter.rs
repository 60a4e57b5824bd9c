//! An allowance of bytes for each event, so that no tag, comment or run of
//! text is gathered without bound.

use std::io::{self, BufRead, Read};

/// A source that gives no more than an allowance between two calls of
/// [`Meter::restart`].
pub struct Meter<R> {
    inner: R,
    allowance: usize,
    left: usize,
    exceeded: bool,
}

impl<R> Meter<R> {
    pub fn new(inner: R, allowance: usize) -> Self {
        Self {
            inner,
            allowance,
            left: allowance,
            exceeded: false,
        }
    }

    /// A new event begins.
    pub fn restart(&mut self) {
        self.left = self.allowance;
    }

    /// The allowance of the events to come, in bytes.
    pub fn allow(&mut self, bytes: usize) {
        self.allowance = bytes;
        self.left = bytes;
    }

    /// Whether reading failed because an event was too long.
    pub fn exceeded(&self) -> bool {
        self.exceeded
    }
}

impl<R: BufRead> BufRead for Meter<R> {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let available = self.inner.fill_buf()?;
        if available.len() <= self.left {
            return Ok(available);
        }
        if self.left == 0 {
            self.exceeded = true;
            return Err(io::Error::other("the event is longer than allowed"));
        }
        Ok(available.get(..self.left).unwrap_or(available))
    }

    #[inline]
    fn consume(&mut self, amount: usize) {
        self.left = self.left.saturating_sub(amount);
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for Meter<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_within_its_allowance_passes_and_a_longer_one_does_not() {
        let mut meter = Meter::new(&b"abcdef"[..], 4);
        assert_eq!(meter.fill_buf().unwrap(), b"abcd");
        meter.consume(3);
        meter.restart();
        assert_eq!(meter.fill_buf().unwrap(), b"def");
        meter.consume(3);
        assert!(meter.fill_buf().unwrap().is_empty());

        let mut meter = Meter::new(&b"abcdef"[..], 4);
        meter.consume(4);
        assert!(meter.fill_buf().is_err());
        assert!(meter.exceeded());
    }
}
