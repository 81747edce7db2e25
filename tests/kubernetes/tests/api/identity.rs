//! identity: tokens, the issuer and the anchors against a real API server.

use std::path::Path;

use anyhow::{Result, ensure};
use lab::{Pod, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::json;

use crate::world::{AUDIENCE, PATIENCE, World};

fn refused(world: &World, pods: (&Pod, &Pod), (account, token): (&str, &Path), words: &[&str]) -> Result<()> {
    let mut proxy = world.proxy(pods, account, token, &world.anchors()?)?;
    let log = proxy.until("an answer in its log", PATIENCE, |proxy| {
        let log = proxy.log();
        let is_answered = ["the controller refuses", "certified"].iter().any(|said| log.contains(said));
        Ok(is_answered.then_some(log))
    })?;
    for word in ["the controller refuses"].iter().chain(words) {
        ensure!(log.contains(word), "{word:?} is missing in {log}");
    }
    let secret = std::fs::read_to_string(token)?;
    let parts = secret.trim().split('.').filter(|part| part.len() > 10);
    ensure!(!parts.into_iter().any(|part| log.contains(part)), "a part of the token stands in the log");
    Ok(())
}

pub(crate) fn two_controllers_that_start_at_once_agree_on_one_issuer_and_each_certifies(
    world: &mut World,
) -> Result<()> {
    world.enter("mesh-pair")?;
    world.shop()?;
    let (first, mut one) = world.controller("pair-1")?;
    let (second, mut other) = world.controller("pair-2")?;
    world.serves(&mut one)?;
    world.serves(&mut other)?;
    let made = [&one, &other].iter().filter(|process| process.log().contains("issuer made")).count();
    ensure!(made == 1, "{made} of two made an issuer");
    let anchors = world.anchors()?;
    ensure!(
        std::fs::read_to_string(&anchors)?
            == world.text(world.namespace, "secret/tidegate-issuer", "tls.crt")?
    );
    let pod = world.cluster.lab().pod("pair-web", "shop", "web")?;
    let token = world.token("web", "web-0", AUDIENCE)?;
    for controller in [&first, &second] {
        let mut proxy = world.proxy((&pod, controller), "web", &token, &anchors)?;
        proxy.wait_for("certified", PATIENCE)?;
    }
    ensure!(one.log().contains("pod=\"web-0\""), "the pod of the token is not told: {}", one.log_tail());
    Ok(())
}

pub(crate) fn a_token_of_another_audience_another_account_or_nobody_is_refused_with_the_reason(
    world: &mut World,
) -> Result<()> {
    world.enter("mesh-tokens")?;
    world.shop()?;
    let (controller, mut process) = world.controller("tokens-1")?;
    world.serves(&mut process)?;
    let web = world.cluster.lab().pod("tokens-web", "shop", "web")?;
    let pods = (&web, &controller);

    let foreign = world.token("web", "web-0", "https://vault.test")?;
    refused(world, pods, ("web", &foreign), &["https://vault.test", AUDIENCE, "serviceAccountToken"])?;
    let good = world.token("web", "web-0", AUDIENCE)?;
    refused(world, pods, ("orders", &good), &["/sa/orders", "/sa/web"])?;
    let garbage = world.file("garbage", "no-token-at-all.no-token-at-all.no-token-at-all")?;
    refused(world, pods, ("web", &garbage), &["the API server does not take the token"])?;
    // The API server gives none that ends sooner than in ten minutes; one of a pod that is gone it refuses
    // once it has forgotten that it took it, which is ten seconds after.
    world.proxy(pods, "web", &good, &world.anchors()?)?.wait_for("certified", PATIENCE)?;
    world.cluster.kubectl(&["delete", "pod", "web-0", "-n", "shop", "--now"])?;
    until("the token of a pod that is gone to be refused", PATIENCE, || {
        Ok(refused(world, pods, ("web", &good), &["the API server does not take the token"]).ok())
    })?;

    let (_, metrics) = controller.get("http://127.0.0.1:8087/metrics")?;
    for outcome in ["Accepted", "Audience", "Refused"] {
        let counted = format!("tidegate_controller_token_reviews_total{{outcome=\"{outcome}\"}}");
        ensure!(metrics.contains(&counted), "{counted} is missing in {metrics}");
    }
    Ok(())
}

/// A certificate that may sign others, by the one above.
fn ca(
    name: &str,
    above: Option<&CertifiedIssuer<'static, KeyPair>>,
) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    Ok(match above {
        Some(above) => CertifiedIssuer::signed_by(params, key, above)?,
        None => CertifiedIssuer::self_signed(params, key)?,
    })
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Secret `tidegate-issuer` as cert-manager writes it: an intermediate, its chain, the root apart.
fn bring(world: &World, root: &CertifiedIssuer<'static, KeyPair>) -> Result<()> {
    let middle = ca("middle", Some(root))?;
    let own = ca("issuer", Some(&middle))?;
    let chain = pem("CERTIFICATE", own.der()) + &pem("CERTIFICATE", middle.der());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "tidegate-issuer", "namespace": world.namespace},
        "stringData": {"tls.crt": chain, "tls.key": pem("PRIVATE KEY", &own.key().serialize_der()),
                       "ca.crt": pem("CERTIFICATE", root.der())}});
    world.cluster.apply(&secret.to_string())?;
    Ok(())
}

pub(crate) fn an_issuer_of_cert_managers_shape_signs_with_its_chain_and_another_one_follows_live(
    world: &mut World,
) -> Result<()> {
    world.enter("mesh-brought")?;
    world.shop()?;
    let root = ca("root", None)?;
    bring(world, &root)?;
    let (controller, mut process) = world.controller("brought-1")?;
    world.serves(&mut process)?;
    let file = world.anchors()?;
    ensure!(std::fs::read_to_string(&file)? == pem("CERTIFICATE", root.der()), "the root alone is trusted");
    let web = world.cluster.lab().pod("brought-web", "shop", "web")?;
    let token = world.token("web", "web-0", AUDIENCE)?;
    let mut proxy = world.proxy((&web, &controller), "web", &token, &file)?;
    proxy.wait_for("certified", PATIENCE)?;
    drop(proxy);

    let next = ca("next root", None)?;
    bring(world, &next)?;
    process.wait_for("another issuer signs from now on", PATIENCE)?;
    let both = pem("CERTIFICATE", next.der()) + &pem("CERTIFICATE", root.der());
    until("both anchors in shop", PATIENCE, || {
        let text = world.text("shop", "configmap/tidegate-anchors", "anchors.pem")?;
        Ok((text == both).then_some(()))
    })?;
    let mut proxy = world.proxy((&web, &controller), "web", &token, &world.anchors()?)?;
    proxy.wait_for("certified", PATIENCE)?;
    drop(proxy);

    // A Secret that cannot be used is told, and the last good issuer goes on.
    world.cluster.kubectl(&[
        "patch",
        "secret",
        "tidegate-issuer",
        "-n",
        world.namespace,
        "--type=merge",
        "-p",
        r#"{"data": {"tls.key": "bm9uc2Vuc2U="}}"#,
    ])?;
    process.wait_for("is not a private key in PEM", PATIENCE)?;
    let mut proxy = world.proxy((&web, &controller), "web", &token, &world.anchors()?)?;
    proxy.wait_for("certified", PATIENCE)
}

pub(crate) fn anchors_follow_mesh_trust_come_back_when_deleted_and_go_with_the_label(
    world: &mut World,
) -> Result<()> {
    world.enter("mesh-anchors")?;
    world.define()?;
    world.shop()?;
    let (_controller, mut process) = world.controller("anchors-1")?;
    world.serves(&mut process)?;
    let issuer = std::fs::read_to_string(world.anchors()?)?;

    let other = ca("other", None)?;
    let extra = pem("CERTIFICATE", other.der());
    let trust = json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "MeshTrust",
        "metadata": {"name": "anchors"}, "spec": {"anchors": [extra]}});
    world.cluster.apply(&trust.to_string())?;
    let has = |wanted: &str| {
        until("the anchors in shop", PATIENCE, || {
            let text = world.text("shop", "configmap/tidegate-anchors", "anchors.pem").unwrap_or_default();
            Ok((text == wanted).then_some(()))
        })
    };
    has(&format!("{issuer}{extra}"))?;
    world.cluster.kubectl(&["delete", "configmap", "tidegate-anchors", "-n", "shop"])?;
    has(&format!("{issuer}{extra}"))?;
    world.cluster.kubectl(&["delete", "meshtrust", "anchors"])?;
    has(&issuer)?;
    world.cluster.kubectl(&["label", "namespace", "shop", "tidegate.dev/inject-"])?;
    until("no anchors in shop", PATIENCE, || {
        let found = world.cluster.kubectl(&["get", "configmap", "-n", "shop", "-o", "name"])?;
        Ok((!found.contains("tidegate-anchors")).then_some(()))
    })
}
