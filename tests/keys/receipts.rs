//! Receipts: what a sender can prove with one.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use sivi_gateway::store::Rotation;

use super::*;
use crate::support::Gateway;

/// A verifier that knows only what is published.
struct Verifier {
    keys: Value,
}

impl Verifier {
    async fn of(gateway: &Gateway) -> Self {
        let url = format!("{}/.well-known/jwks.json", gateway.url);
        let response = gateway.client.get(url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(
            response.headers()["cache-control"]
                .to_str()
                .unwrap()
                .contains("max-age")
        );
        Self {
            keys: response.json().await.unwrap(),
        }
    }

    /// The protected header, if the signature holds for these bytes.
    fn verify(&self, signature: &str, body: &[u8]) -> Option<Value> {
        let [header, "", signature] = signature.split('.').collect::<Vec<_>>()[..] else {
            panic!("not detached: {signature}");
        };
        let claims: Value = serde_json::from_slice(&BASE64.decode(header).unwrap()).unwrap();
        assert_eq!(claims["alg"], "EdDSA");
        let keys = self.keys["keys"].as_array().unwrap();
        let key = keys.iter().find(|key| key["kid"] == claims["kid"])?;
        let key = BASE64.decode(key["x"].as_str().unwrap()).unwrap();
        let input = format!("{header}.{}", BASE64.encode(body));
        UnparsedPublicKey::new(&ED25519, key)
            .verify(input.as_bytes(), &BASE64.decode(signature).unwrap())
            .ok()?;
        Some(claims)
    }
}

async fn signed(response: Response, status: u16) -> (String, Vec<u8>) {
    assert_eq!(response.status(), status);
    let signature = response.headers()["receipt-signature"]
        .to_str()
        .unwrap()
        .to_owned();
    (signature, response.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_proves_what_was_accepted() {
    let gateway = Gateway::boot().await;
    let verifier = Verifier::of(&gateway).await;
    let message = Absence::of("W-1", "VG-1").xml();
    let (signature, body) = signed(gateway.post("adp", message.clone()).await, 202).await;
    let claims = verifier.verify(&signature, &body).unwrap();
    let receipt: Value = serde_json::from_slice(&body).unwrap();
    let hex: String = digest(&SHA256, message.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(claims["digest"], format!("sha-256:{hex}"));
    assert_eq!(claims["digest"], receipt["digest"]);
    assert_eq!(claims["id"], receipt["id"]);
    assert_eq!(claims["iss"], "SIVI-GATEWAY");
    assert_eq!(claims["iat"], gateway.clock.now().as_second());
    for at in [0, body.len() / 2, body.len() - 1] {
        let mut changed = body.clone();
        changed[at] ^= 1;
        assert_eq!(verifier.verify(&signature, &changed), None);
    }

    // The same message again: the same bytes.
    let again = signed(gateway.post("adp", message.clone()).await, 200).await;
    assert_eq!(again, (signature.clone(), body.clone()));

    // As a Retourmelding, which says nothing of it itself.
    let as_xml = gateway
        .posting("adp", message.clone())
        .header("accept", "application/xml");
    let as_xml = as_xml.build().unwrap();
    assert_eq!(as_xml.headers().get_all("accept").iter().count(), 2);
    let mut as_xml = as_xml;
    as_xml
        .headers_mut()
        .insert("accept", "application/xml".parse().unwrap());
    let answer = gateway.client.execute(as_xml).await.unwrap();
    let (xml_signature, xml) = signed(answer, 200).await;
    assert!(xml.starts_with(b"<?xml"));
    assert_eq!(verifier.verify(&xml_signature, &xml).unwrap(), claims);
    assert_eq!(verifier.verify(&signature, &xml), None);

    // A new key signs what comes next; the old one verifies what it signed.
    gateway
        .base
        .store
        .rotate_keys(Rotation::Receipts)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (newer, same) = signed(gateway.post("adp", message).await, 200).await;
    assert_eq!(same, body);
    assert_ne!(newer, signature);
    assert_eq!(verifier.verify(&newer, &body), None);
    let verifier = Verifier::of(&gateway).await;
    assert_eq!(verifier.verify(&signature, &body).unwrap(), claims);
    assert!(verifier.verify(&newer, &body).is_some());
    gateway.stop().await;
}
