//! What applying a directory file would change, as text for people.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::model::{Directory, RecordKind};

/// The way from the present directory to another one.
#[derive(Clone, Debug)]
pub struct Diff {
    /// What changes, by kind and id.
    pub changes: Vec<Change>,
    /// The directory after the changes.
    pub merged: Directory,
}

/// One record that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A record that is new.
    Add {
        /// What it is.
        kind: RecordKind,
        /// Its id.
        id: String,
    },
    /// A record that is there with other content.
    Change {
        /// What it is.
        kind: RecordKind,
        /// Its id.
        id: String,
        /// One entry per key: `edition "2017" → "2022"`.
        details: Vec<String>,
    },
    /// A record that goes.
    Remove {
        /// What it is.
        kind: RecordKind,
        /// Its id.
        id: String,
    },
}

impl Diff {
    /// Compares `old` with `new`, where `new` may be a part: with `prune`
    /// what it does not name is removed, without it stays.
    #[must_use]
    pub fn between(old: &Directory, new: &Directory, prune: bool) -> Self {
        let mut merged = if prune {
            Directory::default()
        } else {
            old.clone()
        };
        merged.parties.extend(new.parties.clone());
        merged.tenants.extend(new.tenants.clone());
        merged.legal_bases.extend(new.legal_bases.clone());
        let changes = changes(&old.bodies(), &merged.bodies());
        Self { changes, merged }
    }

    /// True when nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

type Bodies = BTreeMap<(RecordKind, String), Value>;

fn changes(old: &Bodies, new: &Bodies) -> Vec<Change> {
    let mut keys: Vec<&(RecordKind, String)> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut changes = Vec::new();
    for key in keys {
        let (kind, id) = key.clone();
        match (old.get(key), new.get(key)) {
            (None, _) => changes.push(Change::Add { kind, id }),
            (Some(_), None) => changes.push(Change::Remove { kind, id }),
            (Some(before), Some(after)) if before != after => {
                let details = details(before, after);
                changes.push(Change::Change { kind, id, details });
            }
            (Some(_), Some(_)) => {}
        }
    }
    changes
}

/// The keys that differ between two bodies, routes by receiver, domain and
/// first day instead of their place.
fn details(before: &Value, after: &Value) -> Vec<String> {
    let (before, after) = (flat(before), flat(after));
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut details = Vec::new();
    for key in keys {
        match (before.get(key), after.get(key)) {
            (None, Some(Flat::Route(_))) => details.push(format!("+ {key}")),
            (Some(Flat::Route(_)), None) => details.push(format!("- {key}")),
            (Some(Flat::Route(a)), Some(Flat::Route(b))) if a != b => {
                let inside = self::details(a, b).into_iter();
                details.extend(inside.map(|detail| format!("{key}: {detail}")));
            }
            (a, b) if a != b => details.push(format!("{key} {} → {}", shown(a), shown(b))),
            _ => {}
        }
    }
    if details.is_empty() {
        details.push("order of routes".to_owned());
    }
    details
}

#[derive(PartialEq)]
enum Flat {
    Value(Value),
    Route(Value),
}

fn flat(body: &Value) -> BTreeMap<String, Flat> {
    let mut flat = BTreeMap::new();
    for (key, value) in body.as_object().into_iter().flatten() {
        if key == "route" {
            for route in value.as_array().into_iter().flatten() {
                flat.insert(route_name(route, &flat), Flat::Route(route.clone()));
            }
        } else {
            flat.insert(key.clone(), Flat::Value(value.clone()));
        }
    }
    flat
}

/// A name for a route; a number follows when two would have the same.
fn route_name(route: &Value, taken: &BTreeMap<String, Flat>) -> String {
    let text = |key: &str| route.get(key).and_then(Value::as_str).unwrap_or_default();
    let name = format!(
        "route {} {} from {}",
        text("to"),
        text("domain"),
        text("from")
    );
    let mut numbered = name.clone();
    let mut number = 1;
    while taken.contains_key(&numbered) {
        number += 1;
        numbered = format!("{name} ({number})");
    }
    numbered
}

fn shown(value: Option<&Flat>) -> String {
    match value {
        None => "(none)".to_owned(),
        Some(Flat::Value(value) | Flat::Route(value)) => value.to_string(),
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { kind, id } => write!(f, "+ {kind} {id}"),
            Self::Remove { kind, id } => write!(f, "- {kind} {id}"),
            Self::Change { kind, id, details } => {
                let lines = details
                    .iter()
                    .map(|detail| format!("~ {kind} {id}: {detail}"));
                f.write_str(&lines.collect::<Vec<_>>().join("\n"))
            }
        }
    }
}

impl fmt::Display for Diff {
    /// One line per added or removed record and per changed key, then a sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut added, mut changed, mut removed) = (0, 0, 0);
        for change in &self.changes {
            writeln!(f, "{change}")?;
            match change {
                Change::Add { .. } => added += 1,
                Change::Change { .. } => changed += 1,
                Change::Remove { .. } => removed += 1,
            }
        }
        if self.changes.is_empty() {
            return writeln!(f, "no changes");
        }
        writeln!(f, "{added} added, {changed} changed, {removed} removed")
    }
}
