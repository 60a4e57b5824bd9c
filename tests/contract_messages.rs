//! The contract of `/v1/messages`, over real TLS.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sivi_gateway::validate::{Editions, Mode, validate};
use support::{Absence, DIRECTORY, Gateway, absences, digest, gzip, header, problem};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Adds a tenant of another sender and one without agreement.
fn directory() -> String {
    format!(
        "{DIRECTORY}{}",
        r#"
[[tenant]]
id = "kapper"
name = "Kapper"
source = "nmbrs"
agreement = { signed_on = 2018-02-01, reference = "VO-3" }
employer_keys = [{ IdWrkgvrArbdnst = "300", AansltnrGeguitwlngArbdnst = "1" }]

[[tenant.route]]
to = "arbo-noord"
domain = "arbodienst"
edition = "2017"
from = 2018-01-01

[[tenant]]
id = "slager"
name = "Slager"
source = "adp"
employer_keys = [{ IdWrkgvrArbdnst = "400", AansltnrGeguitwlngArbdnst = "1" }]

[[tenant.route]]
to = "arbo-noord"
domain = "arbodienst"
edition = "2017"
from = 2018-01-01
"#
    )
}

fn invalid(xml: &str) -> String {
    xml.replace("<Gebdat>1980-02-29", "<Gebdat>GEHEIM")
}

fn is_valid_answer(xml: &str) -> bool {
    let editions = Editions::load(None).unwrap();
    let edition = editions.get("2017").unwrap();
    validate(edition, xml.as_bytes(), Mode::SchemaOnly)
        .unwrap()
        .is_valid()
}

async fn until_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A peer that is cut off may end with an error after its answer.
    let reading = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("the connection closes");
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_message_gets_its_receipt() {
    let gateway = Gateway::boot().await;
    let xml = Absence::default().xml();
    let response = gateway.post("adp", xml.clone()).await;
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["content-type"], "application/json");
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert!(!response.headers().contains_key("idempotent-replay"));
    let receipt: Value = response.json().await.unwrap();
    let mut keys: Vec<&String> = receipt.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "digest",
            "edition",
            "findings",
            "id",
            "message_type",
            "received_at",
            "status",
            "test"
        ]
    );
    assert_eq!(receipt["status"], "accepted");
    assert_eq!(receipt["digest"], json!(digest(xml.as_bytes())));
    assert_eq!(receipt["message_type"], "Verzuimmeldingen");
    assert_eq!(receipt["edition"], "2017");
    assert_eq!(receipt["test"], false);
    assert_eq!(receipt["received_at"], support::START);
    assert_eq!(
        location,
        format!("/v1/messages/{}", receipt["id"].as_str().unwrap())
    );
    let again = gateway.post("adp", xml).await;
    assert_eq!(again.status(), 200);
    assert_eq!(again.headers()["idempotent-replay"], "true");
    assert_eq!(again.headers()["location"].to_str().unwrap(), location);
    assert_eq!(again.json::<Value>().await.unwrap(), receipt);
    gateway.stop().await;
}

#[expect(clippy::too_many_lines, reason = "one table of the contract")]
#[tokio::test(flavor = "multi_thread")]
async fn the_checks_come_in_the_order_of_the_contract() {
    let gateway = Gateway::boot_with(&directory(), "limits.max_body_bytes = 20000").await;
    let known = Absence::default();
    gateway.accept("adp", known.xml()).await;
    let foreign = Absence {
        sender: "Nmbrs",
        ..Absence::default()
    };
    let large = " ".repeat(30_000);
    let post = |xml: String| gateway.posting("adp", xml);

    // 401 before 415, 413 and everything else.
    for token in [
        "",
        "sgw_x",
        "sgw_000000000000_x",
        &format!("{}x", gateway.keys["adp"]),
    ] {
        let request = gateway
            .client
            .post(format!("{}/v1/messages", gateway.url))
            .bearer_auth(token)
            .header("content-type", "text/plain")
            .body(large.clone());
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        problem(response, 401).await;
    }
    let nobody = gateway.client.post(format!("{}/v1/messages", gateway.url));
    problem(nobody.send().await.unwrap(), 401).await;

    // 415 before 413.
    let typed = |kind: &str, body: String| {
        gateway
            .client
            .post(format!("{}/v1/messages", gateway.url))
            .bearer_auth(&gateway.keys["adp"])
            .header("content-type", kind)
            .body(body)
    };
    for kind in ["text/plain", "application/json", "application/xhtml+xml"] {
        problem(typed(kind, large.clone()).send().await.unwrap(), 415).await;
    }
    let untyped = gateway
        .client
        .post(format!("{}/v1/messages", gateway.url))
        .bearer_auth(&gateway.keys["adp"])
        .body(large.clone());
    problem(untyped.send().await.unwrap(), 415).await;
    let zstd = post(large.clone()).header("content-encoding", "zstd");
    problem(zstd.send().await.unwrap(), 415).await;
    let twice = post(large.clone()).header("content-encoding", "gzip, gzip");
    problem(twice.send().await.unwrap(), 415).await;

    // 413 before 400.
    problem(post(large.clone()).send().await.unwrap(), 413).await;
    let packed = gateway
        .posting("adp", gzip(large.as_bytes()))
        .header("content-encoding", "gzip");
    problem(packed.send().await.unwrap(), 413).await;

    // 400 before 403.
    let broken = foreign.xml().replace("</Wrkgvr>", "");
    let refused = problem(gateway.post("adp", broken).await, 400).await;
    assert_eq!(refused["findings"][0]["code"], "not_well_formed");
    let doctype = foreign.xml().replace(
        "?>\n",
        "?>\n<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>",
    );
    let refused = problem(gateway.post("adp", doctype).await, 400).await;
    assert_eq!(refused["findings"][0]["code"], "doctype_forbidden");
    problem(gateway.post("adp", "").await, 400).await;

    // 403 before 200, 409 and 422.
    let other_sender = Absence {
        sender: "Nmbrs",
        berrefnr: known.berrefnr.clone(),
        ..Absence::default()
    };
    for xml in [
        foreign.xml(),
        other_sender.xml(),
        invalid(&foreign.xml()),
        invalid(&other_sender.xml()),
    ] {
        let refused = problem(gateway.post("adp", xml).await, 403).await;
        assert_eq!(refused["findings"][0]["code"], "sender_mismatch");
    }
    let other_employer = Absence {
        employer: ("300", "1"),
        ..Absence::default()
    };
    for xml in [other_employer.xml(), invalid(&other_employer.xml())] {
        let refused = problem(gateway.post("adp", xml).await, 403).await;
        assert_eq!(refused["findings"][0]["code"], "employer_foreign");
    }
    let one_of_two = absences(
        &header("00100", "00006", "ADP", "ARBONOORD", "two-employers", "N"),
        &[
            (("105", "6431"), vec![Absence::default().employee()]),
            (("300", "1"), vec![Absence::default().employee()]),
        ],
    );
    let refused = problem(gateway.post("adp", one_of_two).await, 403).await;
    assert_eq!(refused["findings"][0]["path"], "Wrkgvr[2]");

    // 200 and 409 before 422.
    assert_eq!(gateway.post("adp", known.xml()).await.status(), 200);
    problem(gateway.post("adp", invalid(&known.xml())).await, 409).await;
    let other = Absence {
        surname: "Bakker".to_owned(),
        ..known.clone()
    };
    problem(gateway.post("adp", other.xml()).await, 409).await;
    problem(
        gateway
            .post("adp", invalid(&Absence::default().xml()))
            .await,
        422,
    )
    .await;
    let unknown = gateway.post("adp", "<Loonaangifte/>").await;
    let refused = problem(unknown, 422).await;
    assert_eq!(refused["findings"][0]["code"], "message_unknown");
    let bsn_as_key = Absence {
        bsn: Some("111222333".to_owned()),
        person: "111222333".to_owned(),
        ..Absence::default()
    };
    let refused = problem(gateway.post("adp", bsn_as_key.xml()).await, 422).await;
    assert!(!refused.to_string().contains("111222333"));
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agreement_nothing_is_taken() {
    let gateway = Gateway::boot_with(&directory(), "").await;
    let report = Absence {
        employer: ("400", "1"),
        ..Absence::default()
    };
    let refused = problem(gateway.post("adp", report.xml()).await, 403).await;
    assert_eq!(refused["findings"][0]["code"], "no_agreement");
    assert_eq!(refused["findings"][0]["severity"], "error");
    let path = format!("/v1/messages?berrefnr={}", report.berrefnr);
    problem(gateway.get("adp", &path).await, 404).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_say_where_and_never_what() {
    let gateway = Gateway::boot().await;
    let xml = Absence::default()
        .xml()
        .replace("<Gebdat>", "\n\n  é<Gebdat>")
        .replace("1980-02-29", "GEHEIM");
    let response = gateway
        .posting("adp", xml.clone())
        .header("accept-language", "nl-NL, nl;q=0.9, en;q=0.5")
        .send()
        .await
        .unwrap();
    let refused = problem(response, 422).await;
    let text = refused.to_string();
    assert!(
        !text.contains("GEHEIM") && !text.contains("Vries"),
        "{text}"
    );
    let found = refused["findings"].as_array().unwrap();
    let birth = found
        .iter()
        .find(|finding| finding["path"] == "Wrkgvr[1]/Wrknmr[1]/Gebdat[1]")
        .unwrap();
    assert_eq!(
        (&birth["line"], &birth["column"], &birth["severity"]),
        (&json!(4), &json!(4), &json!("error"))
    );
    assert!(
        birth["message"].as_str().unwrap().starts_with("De waarde"),
        "{birth}"
    );
    assert_eq!(refused["title"], "Het bericht is niet geldig");
    let english = problem(gateway.post("adp", xml).await, 422).await;
    assert_eq!(english["title"], "The message is not valid");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_attempt_does_not_use_up_the_reference() {
    let gateway = Gateway::boot_with(&directory(), "").await;
    let report = Absence::default();
    for (xml, status) in [
        (invalid(&report.xml()), 422),
        (report.xml().replace("</Wrkgvr>", ""), 400),
        (report.xml().replace(">ADP<", ">Nmbrs<"), 403),
    ] {
        problem(gateway.post("adp", xml).await, status).await;
    }
    gateway.accept("adp", report.xml()).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receipt_has_the_form_that_was_asked_for() {
    let gateway = Gateway::boot().await;
    let wanting = |xml: String| xml.replace("<OntvngstbevJN>N", "<OntvngstbevJN>J");
    let send = async |xml: String, accept: &str| {
        let mut request = gateway
            .client
            .post(format!("{}/v1/messages", gateway.url))
            .bearer_auth(&gateway.keys["adp"])
            .header("content-type", "text/xml")
            .body(xml);
        if !accept.is_empty() {
            request = request.header("accept", accept);
        }
        request.send().await.unwrap()
    };
    for (receipt_wanted, accept, is_xml) in [
        (false, "", false),
        (false, "*/*", false),
        (true, "", true),
        (true, "*/*", true),
        (true, "application/json", false),
        (false, "application/xml", true),
        (false, "text/xml", true),
        (true, "application/xml;q=0.2, application/json;q=0.9", false),
        (false, "application/xml, application/json;q=0.9", true),
    ] {
        let report = Absence::default();
        let xml = if receipt_wanted {
            wanting(report.xml())
        } else {
            report.xml()
        };
        let response = send(xml.clone(), accept).await;
        assert_eq!(response.status(), 202, "{accept}");
        assert!(response.headers().contains_key("location"));
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(kind.contains("xml"), is_xml, "{receipt_wanted} {accept}");
        let text = response.text().await.unwrap();
        if is_xml {
            assert!(is_valid_answer(&text), "{text}");
            let answered = format!(
                "<BerrefnrIngzndnBer>{}</BerrefnrIngzndnBer>",
                report.berrefnr
            );
            assert!(text.contains(&answered), "{text}");
            assert!(text.contains("<SrtRetmldngCd>02</SrtRetmldngCd>"), "{text}");
            assert!(text.contains("<IdOntvngr>ADP</IdOntvngr>") && !text.contains("Foutmldng"));
            let again = send(xml, accept).await;
            assert_eq!(again.status(), 200);
            assert_eq!(again.text().await.unwrap(), text, "the same receipt");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_retourmelding_when_xml_is_asked_for() {
    let gateway = Gateway::boot_with(&directory(), "limits.max_body_bytes = 20000").await;
    let known = Absence::default();
    gateway.accept("adp", known.xml()).await;
    let long_reference = Absence {
        berrefnr: "r".repeat(600),
        ..Absence::default()
    };
    let long_sender = Absence::default()
        .xml()
        .replace(">ADP<", &format!(">{}<", "S".repeat(60)));
    let other = Absence {
        surname: "Bakker".to_owned(),
        ..known.clone()
    };
    for (xml, status, answered) in [
        (invalid(&other.xml()), 409, Some(&known.berrefnr)),
        (other.xml(), 409, Some(&known.berrefnr)),
        (invalid(&Absence::default().xml()), 422, None),
        (long_reference.xml(), 422, None),
        (long_sender, 403, None),
        ("<a".to_owned(), 400, None),
        (" ".repeat(30_000), 413, None),
    ] {
        let request = gateway.client.post(format!("{}/v1/messages", gateway.url));
        let response = request
            .bearer_auth(&gateway.keys["adp"])
            .header("content-type", "application/xml")
            .header("accept", "application/xml")
            .body(xml)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(
            response.headers()["content-type"],
            "application/xml; charset=utf-8"
        );
        let text = response.text().await.unwrap();
        assert!(is_valid_answer(&text), "{text}");
        assert!(text.contains("<Foutmldng>"), "says accepted: {text}");
        assert!(text.contains("<SrtRetmldngCd>03</SrtRetmldngCd>"), "{text}");
        assert!(!text.contains("GEHEIM") && !text.contains("SSSS"), "{text}");
        if let Some(answered) = answered {
            assert!(text.contains(answered.as_str()), "{text}");
        }
    }
    let nobody = gateway.client.post(format!("{}/v1/messages", gateway.url));
    let nobody = nobody.header("accept", "text/xml").send().await.unwrap();
    assert_eq!(nobody.status(), 401);
    assert_eq!(nobody.headers()["www-authenticate"], "Bearer");
    let text = nobody.text().await.unwrap();
    assert!(is_valid_answer(&text) && text.contains("<Foutmldng>"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_taken_whole_or_not_at_all() {
    let gateway = Gateway::boot_with(DIRECTORY, "limits.max_body_bytes = 4000000").await;
    let packed = async |bytes: Vec<u8>, coding: &str| {
        gateway
            .posting("adp", bytes)
            .header("content-encoding", coding)
            .send()
            .await
            .unwrap()
    };
    let xml = Absence::default().xml();
    let response = packed(gzip(xml.as_bytes()), "gzip").await;
    assert_eq!(response.status(), 202);
    let receipt: Value = response.json().await.unwrap();
    assert_eq!(receipt["digest"], json!(digest(xml.as_bytes())));
    // The same message, not packed, is the same message.
    assert_eq!(gateway.post("adp", xml).await.status(), 200);

    let xml = Absence::default().xml();
    let (first, second) = xml.as_bytes().split_at(700);
    let members = [gzip(first), gzip(second)].concat();
    assert_eq!(packed(members, "GZIP").await.status(), 202);

    let xml = Absence::default().xml();
    let whole = gzip(xml.as_bytes());
    let mut broken = whole.clone();
    broken[40] ^= 0x55;
    let mut wrong_sum = whole.clone();
    let end = wrong_sum.len() - 6;
    wrong_sum[end] ^= 1;
    let mut garbage = whole.clone();
    garbage.extend(b"garbage");
    for bytes in [
        broken,
        wrong_sum,
        garbage,
        whole[..whole.len() - 9].to_vec(),
        whole[..whole.len() - 3].to_vec(),
        whole[..12].to_vec(),
        whole[..5].to_vec(),
        b"<a/>".to_vec(),
        Vec::new(),
    ] {
        let refused = problem(packed(bytes, "gzip").await, 400).await;
        assert_eq!(refused["findings"][0]["code"], "compression_broken");
    }
    let bomb = gzip(&gzip(&vec![b' '; 200 << 20]));
    problem(packed(bomb, "gzip").await, 400).await;
    let bomb = gzip(&vec![b' '; 200 << 20]);
    let started = Instant::now();
    problem(packed(bomb, "gzip").await, 413).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    // Not packed although it says nothing.
    problem(gateway.post("adp", whole).await, 400).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charset_of_the_content_type_outranks_the_declaration() {
    let gateway = Gateway::boot().await;
    let typed = async |kind: &str, bytes: Vec<u8>| {
        let request = gateway.client.post(format!("{}/v1/messages", gateway.url));
        request
            .bearer_auth(&gateway.keys["adp"])
            .header("content-type", kind)
            .header("accept", "application/json")
            .body(bytes)
            .send()
            .await
            .unwrap()
    };
    let latin1 = |xml: String| -> Vec<u8> {
        xml.chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect()
    };
    let report = || Absence {
        surname: "Müller".to_owned(),
        ..Absence::default()
    };
    for kind in [
        "application/xml; charset=iso-8859-1",
        "text/xml;charset=\"ISO-8859-1\"",
        "application/xml; charset=windows-1252",
    ] {
        let bytes = latin1(report().xml());
        let response = typed(kind, bytes.clone()).await;
        assert_eq!(response.status(), 202, "{kind}");
        let receipt: Value = response.json().await.unwrap();
        assert_eq!(receipt["digest"], json!(digest(&bytes)), "{kind}");
        assert_eq!(typed(kind, bytes).await.status(), 200);
        assert!(gateway.take("arbo-noord").await[0].contains("Müller"));
    }
    // Declared in the document only.
    let declared = report().xml().replace("UTF-8", "ISO-8859-1");
    let response = typed("application/xml", latin1(declared.clone())).await;
    assert_eq!(response.status(), 202);
    assert!(gateway.take("arbo-noord").await[0].contains("Müller"));
    // Said to be UTF-8 by the header, Latin-1 by the document, and it is UTF-8.
    let response = typed("application/xml; charset=utf-8", declared.into_bytes()).await;
    assert_eq!(response.status(), 409, "the same reference, other bytes");
    let wrong = problem(
        typed("application/xml; charset=utf-8", latin1(report().xml())).await,
        400,
    )
    .await;
    assert_eq!(wrong["findings"][0]["code"], "encoding_broken");
    let utf16: Vec<u8> = report()
        .xml()
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for kind in ["application/xml; charset=utf-16", "application/xml"] {
        let wrong = problem(typed(kind, utf16.clone()).await, 400).await;
        assert_eq!(wrong["findings"].as_array().unwrap().len(), 1, "{wrong}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_body_leaves_nothing() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    let xml = report.xml();
    let path = format!("/v1/messages?berrefnr={}", report.berrefnr);
    // Cut off in the middle, and everything sent but announced as longer.
    for (announced, sent) in [(xml.len(), xml.len() / 2), (xml.len() + 1, xml.len())] {
        let mut stream = gateway.raw().await;
        let head = gateway.raw_head("adp", &format!("Content-Length: {announced}\r\n"));
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&xml.as_bytes()[..sent]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(stream);
        tokio::time::sleep(Duration::from_millis(100)).await;
        problem(gateway.get("adp", &path).await, 404).await;
    }
    // Announced as shorter: a message that is not well-formed, and rubbish.
    let mut stream = gateway.raw().await;
    let head = gateway.raw_head("adp", &format!("Content-Length: {}\r\n", xml.len() - 20));
    stream
        .write_all(format!("{head}{xml}").as_bytes())
        .await
        .unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    problem(gateway.get("adp", &path).await, 404).await;
    // Half a chunk.
    let mut stream = gateway.raw().await;
    let head = gateway.raw_head("adp", "Transfer-Encoding: chunked\r\n");
    let (first, second) = xml.split_at(100);
    stream
        .write_all(format!("{head}{:x}\r\n{first}\r\n{:x}\r\n", first.len(), 4000).as_bytes())
        .await
        .unwrap();
    drop(stream);
    problem(gateway.get("adp", &path).await, 404).await;
    // All chunks.
    let mut stream = gateway.raw().await;
    let head = gateway.raw_head("adp", "Transfer-Encoding: chunked\r\nConnection: close\r\n");
    let chunks = format!(
        "{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    stream
        .write_all(format!("{head}{chunks}").as_bytes())
        .await
        .unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    // Two lengths at once: a smuggler's request.
    let mut stream = gateway.raw().await;
    let head = gateway.raw_head("adp", "Content-Length: 5\r\nContent-Length: 6\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_is_readable_and_then_the_connection_closes() {
    let gateway = Gateway::boot_with(DIRECTORY, "limits.max_body_bytes = 20000").await;
    let (good, bad) = (
        gateway.raw_head("adp", ""),
        gateway
            .raw_head("adp", "")
            .replace("Bearer sgw", "Bearer no"),
    );
    let typed = good.replace("application/xml", "text/plain");
    for (head, status) in [(bad, "401"), (typed, "415"), (good, "413")] {
        // A client that first sends 3 MiB and only then reads.
        let body = vec![b' '; 3 << 20];
        let announced = head.replace(
            "\r\n\r\n",
            &format!("\r\nContent-Length: {}\r\n\r\n", body.len()),
        );
        let mut stream = gateway.raw().await;
        stream.write_all(announced.as_bytes()).await.unwrap();
        let _ = stream.write_all(&body).await;
        let answer = until_closed(&mut stream).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains("connection: close"), "{answer}");

        // One that sends in chunks for ever.
        let stream = gateway.raw().await;
        let (mut reading, mut writing) = tokio::io::split(stream);
        let chunked = head.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n");
        writing.write_all(chunked.as_bytes()).await.unwrap();
        let flood = async {
            let chunk = [&b"10000\r\n"[..], &vec![b' '; 0x10000], b"\r\n"].concat();
            let mut sent = 0;
            while writing.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
            sent
        };
        let (answer, sent) = tokio::join!(until_closed(&mut reading), flood);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(sent < 32 << 20, "{sent} bytes were taken from it");
    }
    // One that asks first is not made to send.
    let mut stream = gateway.raw().await;
    let head = gateway
        .raw_head("adp", "Expect: 100-continue\r\nContent-Length: 100000\r\n")
        .replace("Bearer sgw", "Bearer no");
    let started = Instant::now();
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(4));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_twenty_times_at_once_is_one_message() {
    let gateway = Gateway::boot().await;
    let xml = Absence::default().xml();
    let posts = (0..20).map(|_| {
        let request = gateway.posting("adp", xml.clone());
        tokio::spawn(async move {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            (status, response.json::<Value>().await.unwrap())
        })
    });
    let mut answers = Vec::new();
    for post in posts.collect::<Vec<_>>() {
        answers.push(post.await.unwrap());
    }
    let accepted = answers.iter().filter(|(status, _)| *status == 202).count();
    assert_eq!(accepted, 1);
    assert!(
        answers
            .iter()
            .all(|(status, _)| [200, 202].contains(status))
    );
    assert!(answers.iter().all(|(_, receipt)| receipt == &answers[0].1));
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);

    // Different messages with the same reference: one wins.
    let reference = uuid::Uuid::new_v4().to_string();
    let posts: Vec<_> = (0..20)
        .map(|number| {
            let report = Absence {
                berrefnr: reference.clone(),
                ..Absence::of(&format!("W-{number}"), &format!("VG-{number}"))
            };
            let request = gateway.posting("adp", report.xml());
            tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
        })
        .collect();
    let mut statuses = Vec::new();
    for post in posts {
        statuses.push(post.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses[0], 202);
    assert!(statuses[1..].iter().all(|status| *status == 409));
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_methods_and_ids_have_problems_too() {
    let gateway = Gateway::boot().await;
    let receipt = gateway.accept("adp", Absence::default().xml()).await;
    let id = receipt["id"].as_str().unwrap();
    for path in ["/", "/v1", "/v1/messages/", "/v2/messages", "/v1/inbox"] {
        problem(gateway.get("adp", path).await, 404).await;
    }
    for path in [
        "/v1/messages/none",
        "/v1/messages/%ff",
        "/v1/messages/%00",
        "/v1/messages?berrefnr=none",
    ] {
        problem(gateway.get("adp", path).await, 404).await;
    }
    problem(gateway.get("adp", "/v1/messages").await, 400).await;
    let own = format!("/v1/messages/{id}");
    problem(gateway.get("nmbrs", &own).await, 404).await;
    for (method, path) in [
        ("DELETE", "/v1/messages"),
        ("PUT", own.as_str()),
        ("POST", own.as_str()),
        ("GET", "/v1/inbox/lease"),
        ("GET", "/v1/inbox/x/reject"),
        ("POST", "/v1/inbox/feed"),
        ("POST", "/healthz"),
    ] {
        let request = gateway
            .client
            .request(method.parse().unwrap(), format!("{}{path}", gateway.url))
            .bearer_auth(&gateway.keys["adp"]);
        let response = request.send().await.unwrap();
        assert!(response.headers().contains_key("allow"), "{method} {path}");
        problem(response, 405).await;
    }
    let nobody = gateway.client.get(format!("{}{own}", gateway.url));
    problem(nobody.send().await.unwrap(), 401).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_found_by_id_and_by_reference_by_its_sender_only() {
    let gateway = Gateway::boot().await;
    let report = Absence {
        berrefnr: "a b/ç+1&x=2".replace('&', "&amp;"),
        ..Absence::default()
    };
    let receipt = gateway.accept("adp", report.xml()).await;
    let by_id = gateway.status("adp", &receipt).await;
    let query = async |party: &str| {
        let path = "/v1/messages?berrefnr=a+b%2F%C3%A7%2B1%26x%3D2";
        gateway.get(party, path).await
    };
    let by_reference: Value = query("adp").await.json().await.unwrap();
    assert_eq!(by_id, by_reference);
    problem(query("nmbrs").await, 404).await;
    let mut keys: Vec<&String> = by_id.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "deliveries",
            "edition",
            "findings",
            "id",
            "message_type",
            "received_at",
            "state",
            "steps",
            "test"
        ]
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_through_its_states() {
    let gateway = Gateway::boot().await;
    let state = async |receipt: &Value| {
        let status = gateway.status("adp", receipt).await;
        let steps: Vec<String> = status["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["step"].as_str().unwrap().to_owned())
            .collect();
        assert!(
            steps.starts_with(&["received", "validated", "routed"].map(str::to_owned)),
            "{steps:?}"
        );
        (status["state"].as_str().unwrap().to_owned(), status)
    };
    let receipt = gateway
        .accept("adp", Absence::of("W-1", "VG-1").xml())
        .await;
    let (name, status) = state(&receipt).await;
    assert_eq!(name, "offered");
    assert_eq!(status["deliveries"][0]["route_domain"], "arbodienst");
    assert_eq!(status["deliveries"][0]["state"], "offered");
    let leased = gateway.lease("arbo-noord").await;
    assert_eq!(state(&receipt).await.0, "leased");
    gateway
        .post_json(
            "arbo-noord",
            "/v1/inbox/ack",
            json!({"ids": [leased[0]["id"]]}),
        )
        .await;
    let (name, status) = state(&receipt).await;
    assert_eq!(name, "taken_over");
    assert!(
        status["steps"]
            .as_array()
            .unwrap()
            .iter()
            .any(|step| step["step"] == "taken_over"),
        "{status}"
    );

    let receipt = gateway
        .accept("adp", Absence::of("W-2", "VG-2").xml())
        .await;
    let leased = gateway.lease("arbo-noord").await;
    let path = format!("/v1/inbox/{}/reject", leased[0]["id"].as_str().unwrap());
    let rejected = gateway
        .post_json(
            "arbo-noord",
            &path,
            json!({"lease": leased[0]["lease"], "code": "X", "reason": "Vries kennen wij niet"}),
        )
        .await;
    assert_eq!(rejected.status(), 200);
    let (name, status) = state(&receipt).await;
    assert_eq!(name, "dead");
    assert!(!status.to_string().contains("Vries"), "{status}");

    let parked = Absence {
        employer: ("999", "9"),
        ..Absence::of("W-3", "VG-3")
    };
    let receipt = gateway.accept("adp", parked.xml()).await;
    let (name, status) = state(&receipt).await;
    assert_eq!(name, "parked");
    assert_eq!(status["findings"][0]["code"], "employer_unknown");
    assert_eq!(status["findings"][0]["severity"], "warning");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_messages_are_told_when_to_come_back() {
    let gateway = Gateway::boot_with(DIRECTORY, "limits.messages_per_minute = 3").await;
    for _ in 0..3 {
        gateway.accept("adp", Absence::default().xml()).await;
    }
    let response = gateway.post("adp", Absence::default().xml()).await;
    let pause: u64 = response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&pause), "{pause}");
    problem(response, 429).await;
    // Another party is not slowed down; its own limits come after 401 to 413.
    let nmbrs = Absence {
        sender: "Nmbrs",
        employer: ("300", "1"),
        ..Absence::default()
    };
    assert_eq!(gateway.post("nmbrs", nmbrs.xml()).await.status(), 202);
    gateway.clock.advance(Duration::from_secs(61));
    gateway.accept("adp", Absence::default().xml()).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_is_503_and_heals_by_itself() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    let path = gateway.folder.path().join("gateway.db");
    let mut lock = std::process::Command::new("sqlite3")
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sqlite3 is needed: .ci/test installs it");
    {
        use std::io::{BufRead as _, Write as _};
        let stdin = lock.stdin.as_mut().unwrap();
        stdin
            .write_all(b".timeout 10000\nBEGIN EXCLUSIVE;\nSELECT 'locked';\n")
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(lock.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "locked\n");
    }
    let response = gateway.post("adp", report.xml()).await;
    assert!(response.headers().contains_key("retry-after"));
    problem(response, 503).await;
    let ready = gateway.client.get(format!("{}/readyz", gateway.url));
    problem(ready.send().await.unwrap(), 503).await;
    let alive = gateway.client.get(format!("{}/healthz", gateway.url));
    assert_eq!(alive.send().await.unwrap().status(), 200);
    lock.kill().unwrap();
    lock.wait().unwrap();
    gateway.accept("adp", report.xml()).await;
    let ready = gateway.client.get(format!("{}/readyz", gateway.url));
    assert_eq!(ready.send().await.unwrap().status(), 200);
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_spoilt_and_put_back_is_503_meanwhile() {
    let gateway = Gateway::boot().await;
    gateway.accept("adp", Absence::default().xml()).await;
    // Triggers stand for a disk that is full: every write of a message fails.
    let path = gateway.folder.path().join("gateway.db");
    let sql = |text: &str| {
        let done = std::process::Command::new("sqlite3")
            .arg(&path)
            .arg(text)
            .output();
        done.is_ok_and(|done| done.status.success())
    };
    assert!(
        sql("ALTER TABLE message RENAME TO message_gone"),
        "sqlite3 is needed: .ci/test installs it"
    );
    let report = Absence::default();
    let response = gateway.post("adp", report.xml()).await;
    assert!(response.headers().contains_key("retry-after"));
    problem(response, 503).await;
    assert!(sql("ALTER TABLE message_gone RENAME TO message"));
    gateway.accept("adp", report.xml()).await;
    assert_eq!(gateway.take("arbo-noord").await.len(), 2);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_slow_clients_are_let_go() {
    let settings = "limits.header_seconds = 1\nlimits.idle_seconds = 3\nlimits.body_idle_seconds = 1\nlimits.max_connections = 4";
    let gateway = Gateway::boot_with(DIRECTORY, settings).await;
    // More silent connections than there are places; each place comes back.
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(gateway.raw().await);
    }
    let mut half_head = gateway.raw().await;
    half_head
        .write_all(b"POST /v1/messages HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    assert_eq!(until_closed(&mut half_head).await, "");
    gateway.accept("adp", Absence::default().xml()).await;
    // A body that stops coming.
    let mut slow = gateway.raw().await;
    let head = gateway.raw_head("adp", "Content-Length: 1000\r\n");
    slow.write_all(format!("{head}<a>").as_bytes())
        .await
        .unwrap();
    let answer = until_closed(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // A connection in use stays open for as long as it is used now and then,
    // and a long poll is use.
    let mut kept = gateway.raw().await;
    let get = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..3 {
        kept.write_all(get.as_bytes()).await.unwrap();
        let mut buffer = [0; 1000];
        let count = kept.read(&mut buffer).await.unwrap();
        assert!(buffer[..count].starts_with(b"HTTP/1.1 200"));
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    gateway.take("arbo-noord").await;
    let started = Instant::now();
    let leased = gateway.lease_with("arbo-noord", "wait=5").await;
    assert!(leased.is_empty() && started.elapsed() >= Duration::from_secs(5));
    assert_eq!(until_closed(&mut kept).await, "", "idle for more than 3 s");
    gateway.stop().await;
}
