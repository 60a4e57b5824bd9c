//! `key`: API keys of parties.

use std::path::Path;

use jiff::{Timestamp, ToSpan as _};
use serde_json::json;

use super::{Failure, Format, KeyCommand, on_runtime, open};
use crate::access::NewKey;
use crate::app::Base;
use crate::clock::Clock;
use crate::domain::PartyId;
use crate::store::ApiKey;

pub(super) fn key(
    config: Option<&Path>,
    asked: &KeyCommand,
    format: Format,
) -> Result<(), Failure> {
    on_runtime(async {
        let base = open(config, Clock::system()).await?;
        match asked {
            KeyCommand::Issue { party, days } => issue(&base, party, *days, format).await,
            KeyCommand::List => list(&base, format).await,
            KeyCommand::Revoke { id } => revoke(&base, id, format).await,
        }
    })
}

async fn issue(base: &Base, party: &str, days: Option<u32>, format: Format) -> Result<(), Failure> {
    let unknown = || {
        Failure::No(format!(
            "there is no party {party:?}: apply a directory that names it"
        ))
    };
    let id = PartyId::parse(party).map_err(|_| unknown())?;
    if base.setup().await?.party(&id).is_none() {
        return Err(unknown());
    }
    let now = base.clock.now();
    let expires_at = days
        .map(|days| now.checked_add((i64::from(days) * 24).hours()))
        .transpose()
        .map_err(|_| Failure::environment("--days lies too far ahead"))?;
    let key = NewKey::generate(&base.keys);
    let stored = ApiKey {
        id: key.id.clone(),
        party: id,
        hash: key.hash,
        created_at: now,
        expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    base.store.insert_api_key(stored).await?;
    let json = json!({
        "id": key.id,
        "party": party,
        "expires": expires_at.map(|at| at.to_string()),
        "key": key.text(),
    });
    // As text the key stands alone, so that a script can take it as it is.
    format.print(key.text(), &json);
    Ok(())
}

async fn list(base: &Base, format: Format) -> Result<(), Failure> {
    let keys = base.store.api_keys().await?;
    for id in &keys.unreadable {
        eprintln!("{id}: cannot be read and does not count; revoke it and issue another");
    }
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    match format {
        Format::Json => {
            for key in keys.readable {
                let line = json!({
                    "id": key.id,
                    "party": key.party.as_str(),
                    "created": key.created_at.to_string(),
                    "expires": time(key.expires_at),
                    "revoked": time(key.revoked_at),
                    "last_used": time(key.last_used_at),
                });
                println!("{line}");
            }
        }
        Format::Text => {
            println!(
                "{:<14} {:<20} {:<32} {:<32} last used",
                "id", "party", "created", "expires"
            );
            for key in keys.readable {
                let expires = match (key.revoked_at, key.expires_at) {
                    (Some(_), _) => "revoked".to_owned(),
                    (None, at) => time(at).unwrap_or_else(|| "never".to_owned()),
                };
                let used = time(key.last_used_at).unwrap_or_else(|| "never".to_owned());
                println!(
                    "{:<14} {:<20} {:<32} {expires:<32} {used}",
                    key.id,
                    key.party.as_str(),
                    key.created_at.to_string()
                );
            }
        }
    }
    Ok(())
}

async fn revoke(base: &Base, id: &str, format: Format) -> Result<(), Failure> {
    if base.store.revoke_api_key(id, base.clock.now()).await? {
        format.print(
            format_args!("revoked {id}"),
            &json!({ "id": id, "revoked": true }),
        );
        Ok(())
    } else {
        Err(Failure::No(format!("there is no key {id:?}")))
    }
}
