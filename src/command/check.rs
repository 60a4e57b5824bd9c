//! `check`: everything that would make `serve` fail.

use std::path::Path;

use super::{Failure, on_runtime, settings};
use crate::app::{self, Base};
use crate::clock::Clock;

pub(super) fn check(config: Option<&Path>) -> Result<(), Failure> {
    let settings = settings(config)?;
    println!("ok  configuration");
    on_runtime(async {
        let no = |cause: &dyn std::fmt::Display| Failure::No(format!("not ok  {cause}"));
        app::check_certificate(&settings).map_err(|cause| no(&cause))?;
        println!("ok  certificate");
        let base = Base::open(settings, Clock::system())
            .await
            .map_err(|cause| no(&cause))?;
        let editions: Vec<&str> = base.foundation.editions.names().collect();
        println!("ok  schemas: {}", editions.join(", "));
        let mappings: Vec<&str> = base.foundation.mappings.names().collect();
        println!("ok  mappings: {}", mappings.join(", "));
        println!("ok  policy: version {}", base.foundation.policy.version());
        base.store.health().await.map_err(|cause| no(&cause))?;
        println!("ok  database");
        let keys = base.store.ring_keys().await.map_err(|cause| no(&cause))?;
        println!("ok  key ring: {} keys", keys.len());
        let setup = base.setup().await.map_err(|cause| no(&cause))?;
        let directory = setup.directory.directory();
        println!(
            "ok  directory: {} parties, {} tenants",
            directory.parties.len(),
            directory.tenants.len()
        );
        Ok(())
    })
}
