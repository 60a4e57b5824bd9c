//! `keys`: the keys that seal what is stored. No key is ever shown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Failure, Format, on_runtime, open, settings};
use crate::app::Base;
use crate::clock::Clock;
use crate::config::Source;
use crate::domain::TenantId;
use crate::store::{
    Destroyed, ReplacedKeys, Resealed, RetireError, RingCopyError, RingKey, Rotation, YoungKey,
};

/// Daemons follow the ring within five seconds; then nothing more is sealed
/// with a key that was replaced.
const FOLLOWED: Duration = Duration::from_secs(6);

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Lists the keys of the ring, never the keys themselves.
    List,
    /// Puts a new key in the place of one; what the old one sealed still opens.
    Rotate(RotateArguments),
    /// Seals anew, with the key in use, what replaced keys sealed; daemons go
    /// on meanwhile. One that was cut short goes on where it was.
    Reseal(ResealArguments),
    /// Wraps every key with a new master key.
    Rewrap {
        /// The master key of before, `file:PATH` or `env:NAME`. Default:
        /// `keys.previous`.
        #[arg(long, value_name = "SOURCE")]
        from: Option<String>,
    },
    /// Destroys the keys of a tenant: what they sealed is unreadable in every
    /// copy of the messages.
    Destroy(DestroyArguments),
    /// Copies the ring to another database, for nodes that share it.
    Copy {
        /// An empty database: `postgres://…`, `env:NAME` or `file:PATH`.
        #[arg(long, value_name = "URL")]
        to: String,
    },
    /// Writes the ring to a file; its keys are wrapped by the master key.
    Export {
        /// The file, which must not exist.
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct RotateArguments {
    /// The data key of one tenant, in place of that of the installation.
    #[arg(long, value_name = "ID", group = "which")]
    tenant: Option<String>,
    /// The data keys of the installation and of every tenant.
    #[arg(long, group = "which")]
    all: bool,
    /// The key that signs receipts.
    #[arg(long, group = "which")]
    receipts: bool,
    /// Then also seals anew what the replaced keys sealed, as `keys reseal`.
    #[arg(long, conflicts_with = "receipts")]
    reseal: bool,
}

#[derive(Debug, Args)]
pub(super) struct ResealArguments {
    /// What is one tenant's, in place of what is the installation's.
    #[arg(long, value_name = "ID", group = "whose")]
    tenant: Option<String>,
    /// What is the installation's and every tenant's.
    #[arg(long, group = "whose")]
    all: bool,
}

#[derive(Debug, Args)]
pub(super) struct DestroyArguments {
    /// Whose keys.
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// Without it nothing is destroyed, only told.
    #[arg(long)]
    yes: bool,
    /// Also while the tenant is in the directory: its messages of before go,
    /// and new ones get a new key.
    #[arg(long)]
    force: bool,
    /// Only the keys that were replaced 15 minutes ago or earlier, and nothing
    /// is lost: what they sealed is sealed anew first.
    #[arg(long, conflicts_with = "force")]
    replaced: bool,
}

pub(super) fn keys(
    config: Option<&Path>,
    asked: &KeysCommand,
    format: Format,
) -> Result<(), Failure> {
    on_runtime(async {
        if let KeysCommand::Rewrap { from } = asked {
            return rewrap(config, from.as_deref(), format).await;
        }
        let base = open(config, Clock::system()).await?;
        match asked {
            KeysCommand::List => list(&base, format).await,
            KeysCommand::Rotate(asked) => rotate(&base, asked, format).await,
            KeysCommand::Reseal(asked) => {
                let which = whose_keys(asked.tenant.as_deref(), asked.all)?;
                reseal(&base, &which, format).await.map(drop)
            }
            KeysCommand::Destroy(asked) => destroy(&base, asked, format).await,
            KeysCommand::Copy { to } => copy(&base, to, format).await,
            KeysCommand::Export { path } => export(&base, path, format).await,
            KeysCommand::Rewrap { .. } => Ok(()),
        }
    })
}

fn whose(key: &RingKey) -> &str {
    key.tenant.as_ref().map_or("-", TenantId::as_str)
}

async fn list(base: &Base, format: Format) -> Result<(), Failure> {
    let keys = base.store.ring_keys().await?;
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    if format == Format::Text {
        println!(
            "{:<8} {:<9} {:<20} {:<11} {:<32} state",
            "number", "purpose", "tenant", "generation", "created"
        );
    }
    for key in keys {
        let state = match (key.destroyed_at, key.replaced_at) {
            (Some(at), _) => format!("destroyed {at}"),
            (None, Some(at)) => format!("replaced {at}"),
            (None, None) => "in use".to_owned(),
        };
        match format {
            Format::Json => say(&json!({
                "number": key.number,
                "purpose": key.purpose.as_str(),
                "tenant": key.tenant.as_ref().map(TenantId::as_str),
                "generation": key.generation,
                "created": key.created_at.to_string(),
                "replaced": time(key.replaced_at),
                "destroyed": time(key.destroyed_at),
            })),
            Format::Text => println!(
                "{:<8} {:<9} {:<20} {:<11} {:<32} {state}",
                key.number,
                key.purpose.as_str(),
                whose(&key),
                key.generation,
                key.created_at.to_string(),
            ),
        }
    }
    Ok(())
}

fn say(line: &Value) {
    println!("{line}");
}

fn tenant_id(text: &str) -> Result<TenantId, Failure> {
    TenantId::parse(text).map_err(|_| Failure::No(format!("{text:?} is no id of a tenant")))
}

async fn rotate(base: &Base, asked: &RotateArguments, format: Format) -> Result<(), Failure> {
    let which = if asked.receipts {
        Rotation::Receipts
    } else {
        whose_keys(asked.tenant.as_deref(), asked.all)?
    };
    let made = base.store.rotate_keys(which.clone()).await?;
    if made.is_empty() {
        return Err(Failure::No(
            "there is no such key: a tenant gets one with its first message".to_owned(),
        ));
    }
    match format {
        Format::Json => say(&json!({ "made": made })),
        Format::Text => {
            for number in made {
                println!("made key {number}; daemons use it within five seconds");
            }
        }
    }
    if asked.reseal {
        reseal(base, &which, format).await?;
    }
    Ok(())
}

fn whose_keys(tenant: Option<&str>, all: bool) -> Result<Rotation, Failure> {
    Ok(match tenant {
        Some(tenant) => Rotation::Tenant(tenant_id(tenant)?),
        None if all => Rotation::All,
        None => Rotation::Installation,
    })
}

async fn reseal(base: &Base, which: &Rotation, format: Format) -> Result<Resealed, Failure> {
    // Before, a daemon may seal with a key that was just replaced.
    tokio::time::sleep(FOLLOWED).await;
    let resealed = base.store.reseal(which).await?;
    let text = format!(
        "sealed anew: {} messages, {} parked parts, {} ledger entries, {} receipts and {} \
         rejections; {} values do not open and were left",
        resealed.payloads,
        resealed.parked,
        resealed.entries,
        resealed.receipts,
        resealed.rejections,
        resealed.unopened
    );
    let counts = json!({
        "messages": resealed.payloads,
        "parked": resealed.parked,
        "ledger_entries": resealed.entries,
        "receipts": resealed.receipts,
        "rejections": resealed.rejections,
        "unopened": resealed.unopened,
    });
    format.print(text, &json!({ "resealed": counts }));
    Ok(resealed)
}

async fn rewrap(config: Option<&Path>, from: Option<&str>, format: Format) -> Result<(), Failure> {
    let mut settings = settings(config)?;
    if let Some(from) = from {
        let source = Source::from_argument(from);
        let source = source.map_err(|cause| Failure::environment(format!("--from: {cause}")))?;
        settings.previous_key = Some(source);
    }
    let base = Base::open(settings, Clock::system()).await?;
    let count = base.store.rewrap_keys().await?;
    match format {
        Format::Json => say(&json!({ "wrapped": count })),
        Format::Text => println!("wrapped {count} keys with the current master key"),
    }
    Ok(())
}

async fn destroy(base: &Base, asked: &DestroyArguments, format: Format) -> Result<(), Failure> {
    let tenant = tenant_id(&asked.tenant)?;
    if asked.replaced {
        return destroy_replaced(base, tenant, asked.yes, format).await;
    }
    let is_configured = base.setup().await?.tenant(&tenant).is_some();
    if is_configured && !asked.force {
        return Err(Failure::No(format!(
            "{tenant} is in the directory: remove it first, or say --force to destroy what \
             was sealed until now"
        )));
    }
    if !asked.yes {
        let undelivered = base.store.undelivered_of(&tenant).await?;
        return Err(Failure::No(format!(
            "would destroy the keys of {tenant}, for ever; {undelivered} messages are not \
             delivered yet and would be given up. Say --yes to do it"
        )));
    }
    let destroyed = if is_configured {
        // What comes in meanwhile is sealed with the new key, and stays, also
        // when somebody replaces that one.
        let which = Rotation::Tenant(tenant.clone());
        let made = base.store.rotate_keys(which).await?;
        let made = made.first().copied().unwrap_or(u32::MAX);
        let replaced = base.store.replaced_keys(&tenant).await?.older_than(made);
        tokio::time::sleep(FOLLOWED).await;
        base.store.destroy_replaced_keys(&replaced).await?
    } else {
        base.store.destroy_keys(&tenant).await?
    };
    tell_destroyed(&tenant, destroyed, &[], format);
    Ok(())
}

async fn destroy_replaced(
    base: &Base,
    tenant: TenantId,
    is_certain: bool,
    format: Format,
) -> Result<(), Failure> {
    if !is_certain {
        return Err(Failure::No(format!(
            "would seal anew what replaced keys of {tenant} sealed and then destroy these keys, \
             for ever; backups of before need them. Say --yes to do it"
        )));
    }
    // Before anything is sealed anew: what is replaced meanwhile stays.
    let replaced = base.store.replaced_keys(&tenant).await?;
    if replaced.rested().is_empty() && !replaced.young().is_empty() {
        let young: Vec<String> = replaced.young().iter().map(tell_young).collect();
        let young = young.join("; ");
        return Err(Failure::No(format!("nothing was destroyed: {young}")));
    }
    let which = Rotation::Tenant(tenant.clone());
    let Resealed { unopened, .. } = reseal(base, &which, format).await?;
    if unopened > 0 {
        return Err(Failure::No(format!(
            "{unopened} values of {tenant} do not open and would be lost: nothing was destroyed"
        )));
    }
    let destroyed = retire(base, &replaced).await?;
    tell_destroyed(&tenant, destroyed, replaced.young(), format);
    Ok(())
}

async fn retire(base: &Base, replaced: &ReplacedKeys) -> Result<Destroyed, Failure> {
    let destroyed = base.store.retire_keys(replaced).await;
    destroyed.map_err(|cause| match cause {
        RetireError::InUse(_) => Failure::No(cause.to_string()),
        RetireError::Store(cause) => Failure::from(cause),
    })
}

fn tell_young(key: &YoungKey) -> String {
    let YoungKey { number, from } = key;
    format!("key {number} was replaced a short time ago and may be destroyed from {from} on")
}

fn tell_destroyed(tenant: &TenantId, destroyed: Destroyed, young: &[YoungKey], format: Format) {
    let Destroyed { keys, removed } = destroyed;
    match format {
        Format::Json => say(&json!({
            "tenant": tenant.as_str(),
            "keys": keys,
            "messages": removed.payloads,
            "parked": removed.parked,
            "ledger_entries": removed.entries,
            "too_young": young.iter().map(|key| json!({
                "number": key.number,
                "from": key.from.to_string(),
            })).collect::<Vec<Value>>(),
        })),
        Format::Text => {
            println!(
                "destroyed {keys} keys of {tenant}, and with them {} messages, {} parked parts \
                 and {} ledger entries. Destroy old copies of the ring too, or run keys rewrap",
                removed.payloads, removed.parked, removed.entries
            );
            for key in young {
                println!("{}", tell_young(key));
            }
        }
    }
}

async fn copy(base: &Base, to: &str, format: Format) -> Result<(), Failure> {
    let to = super::copy_store::named("--to", to)?;
    let keys = base.store.copy_ring(&to).await.map_err(|cause| {
        let why = format!("keys copy: {cause}");
        match cause {
            RingCopyError::Occupied => Failure::No(why),
            RingCopyError::Changed | RingCopyError::Store(_) => Failure::Environment(why),
        }
    })?;
    let text = format!("copied {keys} keys to {to}: name it as keys.ring before a node goes on");
    format.print(text, &json!({ "to": to.to_string(), "keys": keys }));
    Ok(())
}

async fn export(base: &Base, path: &Path, format: Format) -> Result<(), Failure> {
    let keys = base.store.export_ring(path).await;
    let keys = keys.map_err(super::backup::failure)?;
    match format {
        Format::Json => say(&json!({ "path": path.display().to_string(), "keys": keys })),
        Format::Text => {
            println!("wrote {keys} keys, wrapped by the master key. Keep the master key elsewhere");
        }
    }
    Ok(())
}
