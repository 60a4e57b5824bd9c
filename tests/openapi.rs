//! The published contract names every problem that the code can answer with,
//! and nothing in it leads nowhere.

use std::collections::BTreeSet;

use serde_json::Value;
use sivi_gateway::http::Kind;
use sivi_gateway::{admin, http};

/// A contract, and the sources of its routes.
struct Contract {
    document: Value,
    sources: &'static [&'static str],
}

/// That of the parties and that of the operators.
fn contracts() -> [Contract; 2] {
    let read = |text| serde_json::from_str(text).expect("the contract is JSON");
    [
        Contract {
            document: read(http::OPENAPI),
            sources: &[
                include_str!("../src/receive/routes.rs"),
                include_str!("../src/deliver/inbox.rs"),
                include_str!("../src/admin.rs"),
                include_str!("../src/http/mod.rs"),
            ],
        },
        Contract {
            document: read(admin::OPENAPI),
            sources: &[
                include_str!("../src/admin/api.rs"),
                include_str!("../src/admin/alerts.rs"),
                include_str!("../src/admin/dead.rs"),
                include_str!("../src/admin/parked.rs"),
            ],
        },
    ]
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
    for (contract, least) in contracts().iter().zip([30, 10]) {
        let mut found = BTreeSet::new();
        references(&contract.document, &mut found);
        assert!(found.len() > least, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(contract.document.pointer(pointer).is_some(), "{reference}");
        }
    }
}

#[test]
fn every_problem_has_an_example_with_its_status() {
    let mut missing: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
    for contract in contracts() {
        let responses = contract.document["components"]["responses"].as_object();
        for (kind, response) in Kind::ALL.iter().flat_map(|kind| {
            let responses = responses.unwrap().values();
            responses.map(move |response| (kind, response))
        }) {
            let example = response.pointer(&format!(
                "/content/application~1problem+json/examples/{}/value",
                kind.slug()
            ));
            let Some(example) = example else { continue };
            let name = format!("urn:sivi-gateway:problem:{}", kind.slug());
            assert_eq!(example["type"], name.as_str());
            assert_eq!(example["status"], kind.status().as_u16(), "{name}");
            assert_eq!(example["title"], kind.title());
            missing.remove(kind.slug());
        }
    }
    assert!(missing.is_empty(), "no example of {missing:?}");
}

#[test]
fn every_route_of_the_code_is_in_its_contract() {
    for contract in contracts() {
        let paths: BTreeSet<String> = contract.document["paths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let mut routes = BTreeSet::new();
        for source in contract.sources {
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
}

/// The handlers whose signature holds `argument`, with their paths.
fn paths_of_handlers_with(source: &str, argument: &str) -> BTreeSet<String> {
    let takes_it = |handler: &str| {
        let from = source.find(&format!("async fn {handler}("));
        let rest = source.get(from.expect("a route names its handler")..);
        let signature = rest.and_then(|rest| rest.split(" {\n").next());
        signature.unwrap().contains(argument)
    };
    let mut paths = BTreeSet::new();
    for rest in source.split(".route(\"").skip(1) {
        let (path, methods) = rest.split_once("\", ").unwrap();
        let methods = methods.split('\n').next().unwrap();
        for method in ["post(", "get("] {
            let handler = methods.split(method).nth(1);
            let handler = handler.map(|rest| rest.split(')').next().unwrap());
            if handler.is_some_and(takes_it) {
                paths.insert(path.to_owned());
            }
        }
    }
    paths
}

#[test]
fn who_sends_a_body_is_told_that_it_can_be_wrong_too_slow_or_too_large() {
    let [parties, operators] = contracts();
    for (contract, statuses) in [
        (&parties, ["400", "408", "413"].as_slice()),
        (&operators, &["400", "413"]),
    ] {
        let mut with_body = BTreeSet::new();
        for (path, methods) in contract.document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                if operation.get("requestBody").is_none() {
                    continue;
                }
                with_body.insert(path.clone());
                for status in statuses {
                    let response = operation["responses"].get(*status);
                    assert!(response.is_some(), "{method} {path}: {status}");
                }
            }
        }
        assert!(with_body.len() > 2, "{with_body:?}");
    }
    // The contract knows every handler that takes one.
    let inbox = include_str!("../src/deliver/inbox.rs");
    let taking = paths_of_handlers_with(inbox, "Small<");
    assert_eq!(taking.len(), 3, "{taking:?}");
    for path in taking {
        let operation = &parties.document["paths"][&path]["post"];
        assert!(operation.get("requestBody").is_some(), "{path}");
    }
}
