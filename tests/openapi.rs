//! The published contract names every problem that the code can answer with,
//! and nothing in it leads nowhere.

use std::collections::BTreeSet;

use serde_json::Value;
use sivi_gateway::http::{Kind, OPENAPI};

fn contract() -> Value {
    serde_json::from_str(OPENAPI).expect("the contract is JSON")
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            found.extend(
                entries
                    .get("$ref")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            );
            entries.values().for_each(|entry| references(entry, found));
        }
        Value::Array(entries) => entries.iter().for_each(|entry| references(entry, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let contract = contract();
    let mut found = BTreeSet::new();
    references(&contract, &mut found);
    assert!(found.len() > 30, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(contract.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_problem_has_an_example_with_its_status() {
    let contract = contract();
    let responses = contract["components"]["responses"].as_object().unwrap();
    for kind in Kind::ALL {
        let example = responses
            .values()
            .find_map(|response| {
                response.pointer(&format!(
                    "/content/application~1problem+json/examples/{}/value",
                    kind.slug()
                ))
            })
            .unwrap_or_else(|| panic!("{} has no example", kind.slug()));
        let name = format!("urn:sivi-gateway:problem:{}", kind.slug());
        assert_eq!(example["type"], name.as_str());
        assert_eq!(example["status"], kind.status().as_u16(), "{name}");
        assert_eq!(example["title"], kind.title());
    }
}

#[test]
fn every_route_of_the_code_is_in_the_contract() {
    let paths: BTreeSet<String> = contract()["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let sources = [
        include_str!("../src/receive/routes.rs"),
        include_str!("../src/deliver/inbox.rs"),
        include_str!("../src/admin.rs"),
        include_str!("../src/http/mod.rs"),
    ];
    let mut routes = BTreeSet::new();
    for source in sources {
        for rest in source.split(".route(").skip(1) {
            let path = rest
                .trim_start()
                .strip_prefix('"')
                .and_then(|rest| rest.split('"').next());
            routes.insert(path.expect("a route starts with its path").to_owned());
        }
    }
    assert_eq!(routes, paths);
}
