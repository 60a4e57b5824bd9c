//! The gateway of the demo and its partners.

use std::collections::HashMap;

use jiff::civil::Date;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::access::NewKey;
use crate::app::{App, Base, WriterEnded};
use crate::clock::Clock;
use crate::command::apply_file;
use crate::config::Settings;
use crate::directory::DirectoryFile;
use crate::domain::PartyId;
use crate::store::{ApiKey, Store, WithheldCount};
use crate::toml_file::TomlFile;

const DIRECTORY: &str = include_str!("directory.toml");
const SETTINGS: &str =
    "listen = \"127.0.0.1:0\"\ndata_dir = \".\"\nadmin.listen = \"127.0.0.1:0\"\n";

/// A running gateway with a key for each partner.
pub(super) struct Stage {
    url: String,
    folder: TempDir,
    client: Client,
    keys: HashMap<String, String>,
    store: Store,
    clock: Clock,
    stop: CancellationToken,
    served: JoinHandle<Result<(), WriterEnded>>,
}

/// What the gateway answered.
pub(super) struct Answer {
    pub status: u16,
    pub is_xml: bool,
    body: Value,
}

impl Answer {
    pub fn findings(&self) -> impl Iterator<Item = &Value> {
        self.body
            .get("findings")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    }
}

impl Stage {
    /// Starts the gateway, applies the directory, issues the keys.
    pub async fn set() -> Result<Self, String> {
        let say = |cause: &dyn std::fmt::Display| cause.to_string();
        let folder = tempfile::tempdir().map_err(|cause| say(&cause))?;
        let settings = settings(&folder)?;
        let clock = Clock::system();
        let base = Base::open(settings.clone(), clock.clone())
            .await
            .map_err(|cause| say(&cause))?;
        let file = TomlFile::parse("directory.toml", DIRECTORY.to_owned()).map_err(|c| say(&c))?;
        let file = DirectoryFile::read(vec![file]).map_err(|cause| say(&cause))?;
        apply_file(&base, &file).await?;
        let mut keys = HashMap::new();
        for party in file.directory().parties.keys() {
            keys.insert(party.to_string(), issue(&base, party).await?);
        }
        let app = App::bind(settings, clock.clone())
            .await
            .map_err(|cause| say(&cause))?;
        let address = app.address().map_err(|cause| say(&cause))?;
        let stop = app.stop_token();
        let client = client(&folder)?;
        Ok(Self {
            url: format!("https://localhost:{}", address.port()),
            folder,
            client,
            keys,
            store: base.store,
            clock,
            stop,
            served: tokio::spawn(app.run()),
        })
    }

    /// Stops the gateway.
    pub async fn strike(self) {
        self.stop.cancel();
        let _ = self.served.await;
        self.store.close().await;
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn today(&self) -> Date {
        self.clock.today()
    }

    /// A command line for a visitor who wants more.
    pub fn how_to_go_on(&self) -> String {
        let key = self.keys.get("arbo-noord").map_or("", String::as_str);
        format!(
            "  curl --cacert {}/self-signed.crt -X POST -H 'Authorization: Bearer {key}' '{}/v1/inbox/lease?wait=30'",
            self.folder.path().display(),
            self.url
        )
    }

    fn key(&self, party: &str) -> &str {
        self.keys.get(party).map_or("", String::as_str)
    }

    pub async fn post(&self, party: &str, xml: &str) -> Result<Answer, String> {
        let request = self
            .client
            .post(format!("{}/v1/messages", self.url))
            .bearer_auth(self.key(party))
            .header("content-type", "application/xml")
            .body(xml.to_owned());
        let response = request.send().await.map_err(|cause| cause.to_string())?;
        let status = response.status().as_u16();
        let kind = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        let is_xml = kind.is_some_and(|kind| kind.starts_with("application/xml"));
        let text = response.text().await.map_err(|cause| cause.to_string())?;
        Ok(Answer {
            status,
            is_xml,
            body: serde_json::from_str(&text).unwrap_or_default(),
        })
    }

    pub async fn lease(&self, party: &str) -> Result<Vec<Value>, String> {
        let body = self.call(party, "lease?limit=100", None).await?;
        Ok(body
            .get("messages")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default())
    }

    pub async fn ack(&self, party: &str, ids: &[String]) -> Result<(), String> {
        self.call(party, "ack", Some(json!({ "ids": ids })))
            .await
            .map(|_| ())
    }

    async fn call(&self, party: &str, path: &str, body: Option<Value>) -> Result<Value, String> {
        let mut request = self
            .client
            .post(format!("{}/v1/inbox/{path}", self.url))
            .bearer_auth(self.key(party));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|cause| cause.to_string())?;
        let response = response
            .error_for_status()
            .map_err(|cause| cause.to_string())?;
        response.json().await.map_err(|cause| cause.to_string())
    }

    /// The operator's counts of today.
    pub async fn withheld(&self) -> Result<Vec<WithheldCount>, String> {
        let today = self.today();
        self.store
            .withheld_counts(today..=today, None)
            .await
            .map_err(|cause| cause.to_string())
    }
}

fn settings(folder: &TempDir) -> Result<Settings, String> {
    let file = TomlFile::parse("demo", SETTINGS.to_owned()).map_err(|cause| cause.to_string())?;
    Settings::read(&file, folder.path(), &|_| None).map_err(|cause| cause.to_string())
}

/// A client that trusts the gateway's own certificate and no other.
fn client(folder: &TempDir) -> Result<Client, String> {
    let pem =
        std::fs::read(folder.path().join("self-signed.crt")).map_err(|cause| cause.to_string())?;
    let certificate = reqwest::Certificate::from_pem(&pem).map_err(|cause| cause.to_string())?;
    Client::builder()
        .tls_certs_only([certificate])
        .timeout(std::time::Duration::from_secs(30))
        .build()
        .map_err(|cause| cause.to_string())
}

async fn issue(base: &Base, party: &PartyId) -> Result<String, String> {
    let key = NewKey::generate(&base.keys);
    let stored = ApiKey {
        id: key.id.clone(),
        party: party.clone(),
        hash: key.hash,
        created_at: base.clock.now(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    };
    base.store
        .insert_api_key(stored)
        .await
        .map_err(|cause| cause.to_string())?;
    Ok(key.text().to_owned())
}
