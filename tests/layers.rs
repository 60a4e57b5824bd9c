//! Who may use whom. One crate has no crate borders; this table is the border,
//! and the review of a change to it is the review of the architecture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may use. A module may only name modules above it.
const MAY_USE: &[(&str, &[&str])] = &[
    // Words, time, files. They know nothing of each other, but for reading TOML.
    ("domain", &[]),
    ("clock", &[]),
    ("supervise", &[]),
    ("toml_file", &[]),
    ("config", &["toml_file"]),
    ("seal", &["domain"]),
    ("trace", &["config"]),
    ("certificate", &["domain"]),
    // What a message is: pure, from bytes to a decision.
    ("parse", &["domain"]),
    ("validate", &["domain", "parse"]),
    ("translate", &["domain", "toml_file", "validate"]),
    ("policy", &["domain", "seal", "translate", "validate"]),
    // Who connects and who receives what.
    ("directory", &["domain", "toml_file"]),
    // What survives a crash.
    ("store", &["clock", "domain", "policy", "seal", "supervise"]),
    ("expiry", &["certificate", "domain", "store"]),
    // Everything configured, as one snapshot.
    (
        "setup",
        &[
            "certificate",
            "config",
            "directory",
            "domain",
            "policy",
            "seal",
            "store",
            "toml_file",
            "translate",
            "validate",
        ],
    ),
    // The edges.
    ("http", &["certificate", "clock", "domain"]),
    (
        "access",
        &["clock", "directory", "domain", "http", "seal", "setup"],
    ),
    (
        "receive",
        &[
            "access",
            "clock",
            "directory",
            "domain",
            "http",
            "parse",
            "policy",
            "setup",
            "store",
            "trace",
            "translate",
            "validate",
        ],
    ),
    (
        "deliver",
        &[
            "access",
            "clock",
            "config",
            "directory",
            "domain",
            "http",
            "setup",
            "store",
            "supervise",
            "trace",
        ],
    ),
    // What waits for a person, and what a person can do about it.
    ("letters", &["domain", "receive", "store"]),
    (
        "watch",
        &[
            "clock",
            "config",
            "directory",
            "domain",
            "setup",
            "store",
            "supervise",
        ],
    ),
    (
        "admin",
        &[
            "clock", "domain", "http", "letters", "receive", "seal", "setup", "store", "watch",
        ],
    ),
    // What starts and stops all of it.
    (
        "app",
        &[
            "access",
            "admin",
            "certificate",
            "clock",
            "config",
            "deliver",
            "directory",
            "domain",
            "expiry",
            "http",
            "receive",
            "seal",
            "setup",
            "store",
            "supervise",
            "watch",
        ],
    ),
    (
        "demo",
        &[
            "access",
            "app",
            "clock",
            "command",
            "config",
            "directory",
            "domain",
            "store",
            "toml_file",
        ],
    ),
    (
        "command",
        &[
            "access",
            "app",
            "clock",
            "config",
            "deliver",
            "demo",
            "directory",
            "domain",
            "letters",
            "receive",
            "setup",
            "store",
            "supervise",
            "trace",
            "validate",
        ],
    ),
];

/// Two modules that know each other on purpose: `command` starts the demo, and
/// the demo applies its directory as the command does.
const PAIRS: &[(&str, &str)] = &[("command", "demo")];

/// Words that belong to a few modules, and why.
const KEPT_TO: &[(&str, &[&str], &str)] = &[
    ("sqlx", &["store"], "SQL stays in the store"),
    (
        "axum",
        &["access", "admin", "app", "deliver", "http", "receive"],
        "HTTP stays at the edges",
    ),
    (
        "StatusCode",
        &["access", "admin", "app", "deliver", "http", "receive"],
        "statuses stay at the edges",
    ),
    (
        "std::env",
        &["config"],
        "only the settings read the environment",
    ),
    (
        "env::var",
        &["config"],
        "only the settings read the environment",
    ),
    ("Timestamp::now", &["clock"], "time is passed in"),
    ("SystemTime::now", &["clock"], "time is passed in"),
    ("Zoned::now", &["clock"], "time is passed in"),
];

/// From bytes to a decision nothing waits.
const PURE: &[&str] = &[
    "domain",
    "parse",
    "validate",
    "translate",
    "policy",
    "directory",
    "seal",
];

struct Source {
    module: String,
    path: PathBuf,
    /// The code without comments and without tests.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 60, "only {} files were found", found.len());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // Tests may reach anywhere: they build their inputs through the
            // public path.
            if !path.ends_with("tests") {
                collect(root, &path, found);
            }
            continue;
        }
        if path.extension().is_none_or(|end| end != "rs") || path.ends_with("tests.rs") {
            continue;
        }
        let inside = path.strip_prefix(root).unwrap().to_path_buf();
        let first = inside.iter().next().and_then(|part| part.to_str()).unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        if ["main", "lib"].contains(&module.as_str()) {
            continue;
        }
        let code = code_of(&fs::read_to_string(&path).unwrap());
        found.push(Source {
            module,
            path: inside,
            code,
        });
    }
}

/// Without comments, and without what follows `#[cfg(test)]` up to the end of
/// that item.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        if line.trim() != "#[cfg(test)]" {
            code.push_str(line);
            code.push('\n');
            continue;
        }
        // An item at this depth ends with a `;` or with a `}` at its own depth.
        let depth = line.len() - line.trim_start().len();
        for line in lines.by_ref() {
            let indent = line.len() - line.trim_start().len();
            let text = line.trim();
            if indent == depth && (text.ends_with(';') || text.starts_with('}')) {
                break;
            }
        }
    }
    code
}

/// Module names after `crate::`, also those inside `crate::{…}`.
fn used_modules(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => used.extend(first_names(group)),
            None => drop(used.insert(name(rest))),
        }
    }
    used.remove("");
    used
}

/// The first name of each entry of a group, up to the brace that closes it.
fn first_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut starts) = (0_u32, true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts = true,
            letter if starts && !letter.is_whitespace() => {
                names.push(name(&group[at..]));
                starts = false;
            }
            _ => {}
        }
    }
    names
}

fn name(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_ascii_lowercase() || *c == '_')
        .collect()
}

#[test]
fn modules_use_only_what_they_may() {
    let may_use: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut broken = Vec::new();
    for source in sources() {
        let module = source.module.as_str();
        let allowed = may_use
            .get(module)
            .unwrap_or_else(|| panic!("{module} is not in MAY_USE"));
        for used in used_modules(&source.code) {
            if used != module && !allowed.contains(&used.as_str()) {
                broken.push(format!("{} uses crate::{used}", source.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_table_names_every_module_and_points_one_way() {
    let files: BTreeSet<String> = sources().into_iter().map(|source| source.module).collect();
    let named: BTreeSet<String> = MAY_USE
        .iter()
        .map(|(module, _)| (*module).to_owned())
        .collect();
    assert_eq!(files, named);
    let place = |module: &str| MAY_USE.iter().position(|(known, _)| *known == module);
    for (module, uses) in MAY_USE {
        for used in *uses {
            let is_pair = PAIRS.contains(&(*used, *module));
            assert!(
                place(used) < place(module) || is_pair,
                "{module} points at {used} below it"
            );
        }
    }
}

/// The map of ARCHITECTURE.md is this table, with a sentence for each module.
#[test]
fn the_map_of_the_architecture_is_this_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.splitn(4, " | ");
        let module = cells.next()?.strip_suffix('`')?;
        let (_, uses) = (cells.next()?, cells.next()?);
        MAY_USE.iter().any(|(known, _)| *known == module).then(|| {
            let uses = uses.trim_end_matches('|').split_whitespace();
            (module, uses.filter(|word| *word != "–").collect::<Vec<_>>())
        })
    });
    let table = MAY_USE
        .iter()
        .map(|(module, uses)| (*module, uses.to_vec()));
    assert_eq!(rows.collect::<Vec<_>>(), table.collect::<Vec<_>>());
}

#[test]
fn sql_http_environment_and_clock_stay_where_they_belong() {
    let mut broken = Vec::new();
    for source in sources() {
        for (word, modules, reason) in KEPT_TO {
            if !modules.contains(&source.module.as_str()) && source.code.contains(word) {
                broken.push(format!("{}: {word}: {reason}", source.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn from_bytes_to_decision_nothing_waits() {
    let mut broken = Vec::new();
    for source in sources() {
        let waits = ["async ", ".await", "tokio::", "std::thread"];
        for word in waits.iter().filter(|word| source.code.contains(**word)) {
            if PURE.contains(&source.module.as_str()) {
                broken.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_reader_of_this_table_reads_groups_and_skips_tests() {
    let code = code_of(
        "use crate::clock::{self, Clock};\n\
         use crate::{\n    domain::{Bsn, Code},\n    store,\n};\n\
         // use crate::http;\n\
         #[cfg(test)]\nmod tests {\n    use crate::receive;\n}\n\
         #[cfg(test)]\npub use release::testing;\n\
         fn last() { crate::seal::open() }\n",
    );
    let used: Vec<String> = used_modules(&code).into_iter().collect();
    assert_eq!(used, ["clock", "domain", "seal", "store"]);
}
