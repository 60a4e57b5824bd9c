//! `check`: everything that would make `serve` fail.

use std::path::Path;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{Failure, Format, on_runtime, settings};
use crate::app::{self, Base};
use crate::clock::Clock;
use crate::trace;

/// One line per check that passes; the first that does not ends it.
pub(super) fn check(config: Option<&Path>, format: Format) -> Result<(), Failure> {
    let settings = settings(config)?;
    let passed = |check: &str, detail: Value| passed(format, check, &detail);
    passed("configuration", Value::Null);
    on_runtime(async {
        let no = |cause: &dyn std::fmt::Display| match format {
            Format::Text => Failure::No(format!("not ok  {cause}")),
            Format::Json => Failure::No(cause.to_string()),
        };
        app::check_certificate(&settings, &Clock::system()).map_err(|cause| no(&cause))?;
        passed("certificate", Value::Null);
        app::check_alerts(&settings).map_err(|cause| no(&cause))?;
        passed("alerts", Value::Null);
        trace::check(&settings, Handle::current()).map_err(|cause| no(&cause))?;
        passed("traces", Value::Null);
        let base = Base::open(settings, Clock::system())
            .await
            .map_err(|cause| no(&cause))?;
        app::admin_token(&base.foundation.settings).map_err(|cause| no(&cause))?;
        passed("admin token", Value::Null);
        let editions: Vec<&str> = base.foundation.editions.names().collect();
        passed("schemas", json!(editions.join(", ")));
        let mappings: Vec<&str> = base.foundation.mappings.names().collect();
        passed("mappings", json!(mappings.join(", ")));
        if let Some(authorities) = &base.foundation.client_ca {
            let count = authorities.certificates().len();
            passed("client authorities", json!(count.to_string()));
        }
        let version = base.foundation.policy.version();
        passed("policy", json!(format!("version {version}")));
        base.store.health().await.map_err(|cause| no(&cause))?;
        passed("database", Value::Null);
        let keys = base.store.ring_keys().await.map_err(|cause| no(&cause))?;
        passed("key ring", json!(format!("{} keys", keys.len())));
        let setup = base.setup().await.map_err(|cause| no(&cause))?;
        let directory = setup.directory.directory();
        let (parties, tenants) = (directory.parties.len(), directory.tenants.len());
        passed(
            "directory",
            json!(format!("{parties} parties, {tenants} tenants")),
        );
        let faults = app::push_faults(&setup);
        if !faults.is_empty() {
            return Err(no(&faults.join("; ")));
        }
        passed("push", Value::Null);
        for party in setup.parties_without_authority() {
            let doubt = "known by issuer and subject, and tls.client_ca is not set";
            doubtful(format, &format!("party {party}"), doubt);
        }
        Ok(())
    })
}

fn doubtful(format: Format, check: &str, doubt: &str) {
    format.print(
        format_args!("!   {check}: {doubt}"),
        &json!({ "check": check, "ok": true, "doubt": doubt }),
    );
}

fn passed(format: Format, check: &str, detail: &Value) {
    let more = detail.as_str().map(|detail| format!(": {detail}"));
    let text = format!("ok  {check}{}", more.unwrap_or_default());
    format.print(
        text,
        &json!({ "check": check, "ok": true, "detail": detail }),
    );
}
