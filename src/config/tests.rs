//! What the settings promise, with a made-up environment.

use std::collections::BTreeSet;

use super::*;

fn read(text: &str) -> Result<Settings, Fault> {
    let file = TomlFile::parse("gateway.toml", text.to_owned())?;
    let environment = |name: &str| match name {
        "PORT" => Some("127.0.0.1:1\n".to_owned()),
        "DATABASE" => Some("postgres://gateway:hush@db/gateway".to_owned()),
        "PEM" => Some("-----BEGIN PRIVATE KEY-----\nhush\n".to_owned()),
        _ => None,
    };
    Settings::read(&file, Path::new("/etc/gateway"), &environment)
}

#[test]
fn an_empty_file_gives_the_defaults_beside_the_file() {
    let settings = read("").unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8443");
    assert_eq!(settings.data_dir, Path::new("/etc/gateway/data"));
    let database = PathBuf::from("/etc/gateway/data/gateway.db");
    assert_eq!(settings.database, Database::Sqlite(database));
    let key = PathBuf::from("/etc/gateway/data/data.key");
    assert_eq!(settings.data_key, Source::File(key));
    assert_eq!(settings.limits.receipt_days, 730);
}

#[test]
fn a_fault_names_file_line_and_key_and_no_secret() {
    for (text, expected) in [
        (
            "listen = \"nowhere\"",
            "gateway.toml:1: listen: invalid socket address syntax",
        ),
        (
            "[limits]\nparked_days = 15",
            "gateway.toml:2: limits.parked_days: must be 1 to 14",
        ),
        (
            "[limits]\nin_flight_bytes = 2000",
            "gateway.toml:2: limits.in_flight_bytes: must be at least limits.max_body_bytes",
        ),
        (
            "[tls]\ncert = \"a.pem\"",
            "gateway.toml:2: tls.cert: tls.cert and tls.key go together",
        ),
        (
            "[keys]\ndata = \"hush\"",
            "gateway.toml:2: keys.data: must be file:PATH or env:NAME, never the key itself",
        ),
        (
            "[keys]\nprevious = \"hush\"",
            "gateway.toml:2: keys.previous: must be file:PATH or env:NAME, never the key itself",
        ),
        (
            "[database]\nurl = \"sqlite:one.db\"\n[keys]\nring = \"sqlite:one.db\"",
            "gateway.toml:4: keys.ring: must be another database than database.url",
        ),
        (
            "[database]\nurl = \"mysql://hush\"",
            "gateway.toml:2: database.url: must be sqlite:PATH or postgres://…",
        ),
        (
            "[database]\nurl = \"env:NOBODY\"",
            "gateway.toml:2: database.url: the environment has no variable NOBODY",
        ),
        (
            "[policy]\nwindow_days = 7",
            "gateway.toml:2: policy.window_days: must be 28 to 366",
        ),
        (
            "[gateway]\nsender_id = \"\"",
            "gateway.toml:2: gateway.sender_id: must be 1 to 40 characters",
        ),
        (
            "[log]\nlevel = \"hush\"",
            "gateway.toml:2: log.level: unknown word, expected one of `error`, `warn`, `info`, `debug`, `trace`",
        ),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), expected);
    }
    let unknown = read("[limits]\ncolour = 1").unwrap_err().to_string();
    assert!(unknown.starts_with("gateway.toml:2: limits.colour: unknown field `colour`"));
    let missing = read("[database]\nurl = \"file:absent\"").unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("database.url: the file cannot be read")
    );
}

#[test]
fn texts_come_from_the_environment_and_stay_hidden() {
    let settings = read(
        "listen = \"env:PORT\"\n[database]\nurl = \"env:DATABASE\"\n\
         [tls]\ncert = \"server.pem\"\nkey = \"env:PEM\"\n[keys]\ndata = \"file:/run/key\"\n",
    )
    .unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:1");
    let cert = Source::File(PathBuf::from("/etc/gateway/server.pem"));
    assert_eq!(settings.tls.cert, Some(cert));
    assert_eq!(settings.data_key, Source::File(PathBuf::from("/run/key")));
    let Some(Source::Text(key)) = &settings.tls.key else {
        panic!("the key is given as text");
    };
    assert!(key.expose().starts_with("-----BEGIN"));
    assert!(!format!("{settings:?}").contains("hush"));
}

#[test]
fn a_named_file_must_exist_and_file_references_are_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    assert!(Settings::load(Some(&path)).is_err());
    std::fs::write(folder.path().join("url"), "sqlite:here.db\n").unwrap();
    std::fs::write(&path, "[database]\nurl = \"file:url\"\n").unwrap();
    let settings = Settings::load(Some(&path)).unwrap();
    let database = folder.path().join("here.db");
    assert_eq!(settings.database, Database::Sqlite(database));
}

const EXAMPLE: &str = include_str!("../../config/gateway.example.toml");

#[test]
fn the_example_holds_the_defaults() {
    assert_eq!(read(EXAMPLE).unwrap(), read("").unwrap());
}

/// Keys of the example; those without a default stand behind `#` without a space.
fn example_keys() -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in EXAMPLE.lines() {
        let line = match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        };
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.insert(format!("{section}{key}"));
        }
    }
    keys
}

#[test]
fn no_key_is_missing_from_the_example() {
    let written = serde_json::to_value(Written::default()).unwrap();
    let mut keys = BTreeSet::new();
    for (name, value) in written.as_object().unwrap() {
        match value.as_object() {
            Some(table) => keys.extend(table.keys().map(|key| format!("{name}.{key}"))),
            None => {
                keys.insert(name.clone());
            }
        }
    }
    assert_eq!(example_keys(), keys);
}

#[test]
fn what_waits_for_a_restart_is_what_the_manual_says() {
    let all = "listen = \"127.0.0.1:1\"\ndata_dir = \"other\"\nlimits.replay_days = 1\n\
        admin.listen = \"127.0.0.1:2\"\ndatabase.url = \"sqlite:a.db\"\n\
        keys.data = \"file:a\"\nkeys.previous = \"file:b\"\nkeys.ring = \"sqlite:b.db\"\n\
        log.format = \"json\"\nalerts.queue = 1\ntrace.endpoint = \"http://127.0.0.1/\"\n";
    let (_, waiting) = read("").unwrap().take_over(read(all).unwrap());
    let manual = include_str!("../../docs/connecting.md");
    let list = manual.split("bound or started (").nth(1).unwrap();
    let list = list.split(')').next().unwrap();
    let named: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    assert_eq!(named, waiting);
}
