//! `demo`: the main job on built-in samples, with no set-up.
//!
//! A real gateway starts on a free port with a folder that is thrown away;
//! three senders post their messages over HTTPS, the arbodienst polls them
//! and answers, the employers' side polls what comes back. Everything that is
//! shown came through the contract, but for the counts, which are the
//! operator's.

mod script;
mod stage;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use script::{STEPS, Step};
use serde_json::Value;
use stage::{Answer, Stage};

/// Runs the demo; serves on afterwards unless `once`.
///
/// # Errors
///
/// What went wrong, for a person.
pub fn run(once: bool) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| cause.to_string())?;
    runtime.block_on(async {
        let stage = Stage::set().await?;
        let outcome = play(&stage).await;
        if outcome.is_ok() && !once {
            println!("The gateway keeps running until Ctrl-C:");
            println!("{}", stage.how_to_go_on());
            let _ = tokio::signal::ctrl_c().await;
        }
        stage.strike().await;
        outcome
    })
}

async fn play(stage: &Stage) -> Result<(), String> {
    println!("sivi-gateway demo");
    println!(
        "A real gateway on {}, its data in a folder that is thrown away.\n",
        stage.url()
    );
    println!("1. Three payroll providers send\n");
    let mut surprises = Vec::new();
    for step in STEPS.iter().filter(|step| step.party != "arbo-noord") {
        surprises.extend(send(stage, step).await?);
    }
    println!("\n2. The arbodienst polls\n");
    let mut handed_out = take(stage, "arbo-noord").await?;
    println!("\n3. The arbodienst answers\n");
    for step in STEPS.iter().filter(|step| step.party == "arbo-noord") {
        surprises.extend(send(stage, step).await?);
    }
    println!();
    for party in ["adp", "nmbrs", "sap"] {
        handed_out.extend(take(stage, party).await?);
    }
    println!("\n4. What was withheld, and why (operators see counts, never persons)\n");
    print!("{}", withheld(stage).await?);
    surprises.extend(look_for_numbers(&handed_out));
    if surprises.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the demo did not go as planned:\n{}",
        surprises.join("\n")
    ))
}

async fn send(stage: &Stage, step: &Step) -> Result<Option<String>, String> {
    let answer = stage.post(step.party, &step.message(stage.today())).await?;
    println!(
        "  {:<10} {:<44} {}",
        step.sender,
        step.what,
        outcome(&answer)
    );
    for finding in answer.findings() {
        println!("  {:<10}   {}", "", shown(finding));
    }
    Ok((answer.status != step.status).then(|| {
        format!(
            "{}: {} instead of {}",
            step.file, answer.status, step.status
        )
    }))
}

fn outcome(answer: &Answer) -> String {
    let word = match answer.status {
        202 => "accepted",
        403 => "not this sender's",
        422 => "refused: not valid",
        _ => "",
    };
    let form = if answer.is_xml { ", Retourmelding" } else { "" };
    format!("{} {word}{form}", answer.status)
}

fn shown(finding: &Value) -> String {
    let text = |key: &str| {
        finding
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let number = |key: &str| finding.get(key).and_then(Value::as_u64).unwrap_or_default();
    let place = match number("line") {
        0 => String::new(),
        line => format!("line {line}, column {}: ", number("column")),
    };
    format!(
        "{place}{} {}: {}",
        text("severity"),
        text("code"),
        text("message")
    )
}

/// Polls until the inbox is empty; acknowledges; shows what came.
async fn take(stage: &Stage, party: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    loop {
        let messages = stage.lease(party).await?;
        if messages.is_empty() {
            break;
        }
        let mut ids = Vec::new();
        for message in &messages {
            let text = |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default();
            let xml = text("xml");
            println!(
                "  {:<10} {:<20} {:<18} {}",
                party,
                text("message_type"),
                text("tenant"),
                summary(xml)
            );
            ids.push(text("id").to_owned());
            all.push(xml.to_owned());
        }
        stage.ack(party, &ids).await?;
    }
    Ok(all)
}

/// What is in a release, in a few words.
fn summary(xml: &str) -> String {
    let count = |tag: &str| xml.matches(&format!("<{tag}>")).count();
    let texts = |tag: &str| -> Vec<&str> {
        xml.split(&format!("<{tag}>"))
            .skip(1)
            .filter_map(|rest| rest.split('<').next())
            .collect()
    };
    let mut summary = match count("Wrknmr") {
        0 => String::new(),
        1 => "1 person".to_owned(),
        many => format!("{many} persons"),
    };
    for (tag, word) in [
        ("VrzmgvlVnrMld", "report"),
        ("PrcVrzm", "%"),
        ("DatHrstld", "recovered"),
        ("OmsSrtAfspraak", "kind"),
    ] {
        let found = texts(tag);
        if !found.is_empty() {
            let _ = write!(summary, ", {word} {}", found.join(" and "));
        }
    }
    summary
}

async fn withheld(stage: &Stage) -> Result<String, String> {
    let mut by_rule: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for count in stage.withheld().await? {
        let row = (count.tenant.to_string(), count.message_type, count.rule);
        *by_rule.entry(row).or_default() += count.count;
    }
    let mut out = String::new();
    for ((tenant, message_type, rule), count) in by_rule {
        let why = script::explain_rule(&rule);
        let _ = writeln!(
            out,
            "  {tenant:<18} {message_type:<36} {count:>3} × {rule:<24} {why}"
        );
    }
    Ok(out)
}

/// The proof at the end: none of the planted numbers left.
fn look_for_numbers(handed_out: &[String]) -> Option<String> {
    let planted = script::planted_numbers();
    let digits = |text: &str| -> String { text.chars().filter(char::is_ascii_digit).collect() };
    let found = handed_out
        .iter()
        .filter(|xml| {
            planted
                .iter()
                .any(|number| xml.contains(number) || digits(xml).contains(number))
        })
        .count();
    println!("\n5. The proof\n");
    println!(
        "  {} citizen service numbers were sent; {found} of {} messages that left hold one.\n",
        planted.len(),
        handed_out.len()
    );
    (found > 0).then(|| "a citizen service number left the gateway".to_owned())
}
