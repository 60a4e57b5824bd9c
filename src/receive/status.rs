//! What a sender may see of its message: the states that Dutch users know
//! from Digipoort.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::store::{Delivery, DeliveryState, ParkedState, StoredMessage};

/// The status of a message, with its findings already rendered.
#[must_use]
pub fn status_json(message: &StoredMessage, findings: &[Value]) -> Value {
    let deliveries: Vec<Value> = if message.shown {
        message.deliveries.iter().map(delivery_json).collect()
    } else {
        // Whether a person passed must not show: every route looks the same.
        let routed = |domain: &crate::domain::Domain| {
            json!({
                "route_domain": domain.as_str(),
                "state": "routed",
                "at": message.received_at.to_string(),
            })
        };
        message.routed.iter().map(routed).collect()
    };
    json!({
        "id": message.id,
        "message_type": message.message_type,
        "edition": message.edition,
        "test": message.test,
        "received_at": message.received_at.to_string(),
        "state": state(message),
        "steps": steps(message),
        "deliveries": deliveries,
        "findings": findings,
    })
}

fn delivery_json(delivery: &Delivery) -> Value {
    json!({
        "route_domain": delivery.domain.as_str(),
        "state": delivery.state.as_str(),
        "at": delivery.at.to_string(),
    })
}

/// The state of the whole: the delivery that needs most attention decides.
fn state(message: &StoredMessage) -> &'static str {
    let has = |state| {
        message
            .deliveries
            .iter()
            .any(|delivery| delivery.state == state)
    };
    if has(DeliveryState::Dead) {
        "dead"
    } else if has(DeliveryState::Refused) {
        "refused"
    } else if matches!(message.parked, Some(ParkedState::Waiting)) {
        "parked"
    } else if has(DeliveryState::Offered) {
        "offered"
    } else if has(DeliveryState::Leased) {
        "leased"
    } else if has(DeliveryState::TakenOver) {
        "taken_over"
    } else {
        "routed"
    }
}

fn steps(message: &StoredMessage) -> Vec<Value> {
    let mut steps: Vec<(&'static str, Timestamp)> = ["received", "validated", "routed"]
        .map(|step| (step, message.received_at))
        .to_vec();
    if message.parked.is_some() {
        steps.push(("parked", message.received_at));
    }
    let mut later: Vec<(&'static str, Timestamp)> = message
        .deliveries
        .iter()
        .flat_map(|delivery| &delivery.steps)
        .map(|(state, at)| (state.as_str(), *at))
        .collect();
    later.sort_by_key(|(_, at)| *at);
    steps.extend(later);
    steps.dedup();
    steps
        .into_iter()
        .map(|(step, at)| json!({ "step": step, "at": at.to_string() }))
        .collect()
}
