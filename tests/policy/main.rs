//! The privacy policy, over real TLS: who passes, what passes, what waits and
//! what is refused. Time is moved by the gateway's clock.

mod elements;
mod employers;
mod numbers;
mod parking;
mod persons;
mod properties;
mod returns;
mod sample;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use serde_json::Value;
use support::Gateway;

/// A payroll party and tenant, an arbodienst, a company doctor and an insurer
/// that all get copies.
const COPIES: &str = r#"
[[party]]
id = "adp"
name = "ADP"
kind = "payroll"
sender_ids = ["ADP"]
receiver_id = "ADP"
mapping = "adp"

[[party]]
id = "arbo-noord"
name = "Arbo Noord"
kind = "arbodienst"
receiver_id = "ARBONOORD"
sender_ids = ["ARBONOORD"]

[[party]]
id = "dokter"
name = "Dokter"
kind = "bedrijfsarts"
receiver_id = "DOKTER"
sender_ids = ["DOKTER"]

[[party]]
id = "verzekeraar"
name = "Verzekeraar"
kind = "verzekeraar"
receiver_id = "VERZEKERAAR"

[[tenant]]
id = "bakkerij"
name = "Bakkerij Jansen B.V."
source = "adp"
agreement = { signed_on = 2018-02-01, reference = "VO-1" }
employer_keys = [{ IdWrkgvrArbdnst = "105", AansltnrGeguitwlngArbdnst = "6431" }]
document_codes = ["100"]

[[tenant.route]]
to = "arbo-noord"
domain = "arbodienst"
edition = "2017"
from = 2018-01-01

[[tenant.route]]
to = "dokter"
domain = "bedrijfsarts"
edition = "2017"
from = 2018-01-01
copy = true

[[tenant.route]]
to = "verzekeraar"
domain = "verzekeraar"
edition = "2017"
from = 2018-01-01
copy = true

[[tenant.route]]
to = "adp"
domain = "werkgever"
edition = "2017"
from = 2018-01-01
"#;

const DAY: Duration = Duration::from_hours(24);

/// The codes of the findings of a receipt or problem.
fn codes(answer: &Value) -> Vec<String> {
    let findings = answer["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| finding["code"].as_str().unwrap().to_owned())
        .collect()
}

/// The text of the first element with this tag.
fn text<'x>(xml: &'x str, tag: &str) -> Option<&'x str> {
    let (_, rest) = xml.split_once(&format!("<{tag}>"))?;
    Some(rest.split_once(&format!("</{tag}>"))?.0)
}

/// What waits, as the store gives it.
async fn parked(gateway: &Gateway) -> Vec<sivi_gateway::store::ParkedItem> {
    let filter = sivi_gateway::store::ParkedFilter::default();
    gateway.base.store.parked(&filter).await.unwrap()
}

/// Posts a message that must be refused; gives status and problem.
async fn refused(gateway: &Gateway, party: &str, xml: String) -> (u16, Value) {
    let response = gateway.post(party, xml).await;
    let status = response.status().as_u16();
    assert!(status >= 400, "{status}");
    (status, response.json().await.unwrap())
}

/// How many receipts the store holds.
async fn accepted_nothing(gateway: &Gateway, party: &str, berrefnr: &str) {
    let path = format!("/v1/messages?berrefnr={berrefnr}");
    assert_eq!(gateway.get(party, &path).await.status(), 404);
    assert!(parked(gateway).await.is_empty());
}
