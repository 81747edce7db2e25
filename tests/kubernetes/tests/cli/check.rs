//! check: what `tidegate check` finds on an API server, before an installation and in one that is ill.

use anyhow::{Context, Result, ensure};
use kubernetes::Cluster;
use serde_json::{Value, json};

use crate::{Tidegate, holds};

/// `level object: says` of everything that was found.
fn findings(document: &Value) -> Result<Vec<String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let sections = document["sections"].as_array().context("a report has sections")?;
    let all = sections.iter().filter_map(|section| section["findings"].as_array()).flatten();
    Ok(all
        .map(|found| {
            format!("{} {}: {}", text(&found["level"]), text(&found["object"]), text(&found["says"]))
        })
        .collect())
}

fn found(findings: &[String], expected: &[&str]) -> Result<()> {
    for expected in expected {
        ensure!(findings.iter().any(|found| found.contains(expected)), "no {expected:?} in {findings:#?}");
    }
    Ok(())
}

#[test]
fn a_bare_cluster_takes_an_installation_and_has_none() -> Result<()> {
    let cluster = Cluster::control_plane()?;
    let tidegate = Tidegate::new(&cluster)?;
    let before = findings(&tidegate.document(0, &["check", "--pre", "-o", "json"])?)?;
    found(
        &before,
        &[
            "ok API server: Kubernetes v1.36",
            "ok you: may make all ",
            "ok Gateway API: is not installed",
            "ok Tidegate: is not installed yet",
        ],
    )?;
    let began = std::time::Instant::now();
    let after = findings(&tidegate.document(1, &["check", "-o", "json"])?)?;
    println!("a check took {:.1?}", began.elapsed());
    found(
        &after,
        &[
            "failed CustomResourceDefinition asyncpolicies.tidegate.dev: is not there",
            "failed Deployment tidegate/tidegate-controller: is not there",
            "failed Secret tidegate/tidegate-issuer: is not there",
            "failed MutatingWebhookConfiguration tidegate-injector: is not there: no pod is given a sidecar",
            "warning namespaces: none asks for sidecars",
        ],
    )?;
    let said = tidegate.says(1, &["check"])?;
    holds(&said, &["Controller\n", "→ tidegate install, or helm install", "checks failed"])
}

#[test]
fn who_may_little_is_told_what_could_not_be_looked_at() -> Result<()> {
    let cluster = Cluster::control_plane()?;
    let administrator = Tidegate::new(&cluster)?;
    let tidegate = administrator.of_account("default", "default")?;
    let before = findings(&tidegate.document(1, &["check", "--pre", "-o", "json"])?)?;
    found(&before, &["failed you: may not create namespaces in the whole cluster"])?;
    let after = findings(&tidegate.document(2, &["check", "-o", "json"])?)?;
    found(
        &after,
        &["unknown Deployment tidegate/tidegate-controller: ", "unknown pods: namespaces is forbidden"],
    )?;

    let said = tidegate.says(1, &["queue", "ls", "--pod", "web-0"])?;
    holds(&said, &["a Role in namespace default with", "resources: [pods]"])?;
    let said = administrator.says(1, &["queue", "ls", "--pod", "web-0", "--context", "prod"])?;
    holds(&said, &["has no context \"prod\"; it has: here"])?;
    let said = administrator.says(1, &["queue", "ls", "--pod", "web-0"])?;
    holds(&said, &["there is no pod web-0 in namespace default"])
}

/// A certificate that ends this many days from now, PEM.
fn certificate(days: i64) -> Result<String> {
    let mut params = rcgen::CertificateParams::new(vec!["tidegate-controller.tidegate.svc".to_owned()])?;
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?.as_secs();
    let end = i64::try_from(now)? + days * 24 * 3600 + 3600;
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(u64::try_from(end)?);
    let made = params.self_signed(&rcgen::KeyPair::generate()?)?;
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, made.der());
    Ok(format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"))
}

fn secret(name: &str, certificate: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "tidegate"},
        "stringData": {"tls.crt": certificate, "tls.key": "not read", "ca.crt": certificate},
    })
}

fn definition(plural: &str, kind: &str, version: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.tidegate.dev")},
        "spec": {
            "group": "tidegate.dev", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": version, "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

fn hooks(bundle: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "tidegate-injector"},
        "webhooks": [{
            "name": "namespace.inject.tidegate.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail",
            "namespaceSelector": {"matchLabels": {"tidegate.dev/inject": "enabled"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
            "clientConfig": {
                "caBundle": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bundle),
                "service": {"name": "tidegate-controller", "namespace": "tidegate", "path": "/inject"},
            },
        }],
    })
}

fn deployment() -> Value {
    let labels =
        json!({"app.kubernetes.io/name": "tidegate-controller", "app.kubernetes.io/version": "0.0.9"});
    let container =
        json!({"name": "controller", "image": "none", "ports": [{"name": "admin", "containerPort": 8087}]});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "tidegate-controller", "namespace": "tidegate"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app.kubernetes.io/name": "tidegate-controller"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })
}

fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

#[test]
fn an_installation_that_is_ill_is_told_part_by_part() -> Result<()> {
    let cluster = Cluster::control_plane()?;
    let (webhook, other) = (certificate(90)?, certificate(91)?);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "tidegate-controller", "namespace": "tidegate"},
        "spec": {
            "holderIdentity": "tidegate-controller-x", "leaseDurationSeconds": 15,
            "renewTime": "2026-01-31T12:00:00.000000Z",
        },
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": "shop"},
        "spec": {"containers": [{"name": "application", "image": "none"}], "serviceAccountName": "default"},
    });
    let asks = json!({"tidegate.dev/inject": "enabled", "linkerd.io/inject": "enabled"});
    for object in [
        namespace("tidegate", &json!({})),
        namespace("shop", &asks),
        definition("accesspolicies", "AccessPolicy", "v1alpha1"),
        definition("asyncpolicies", "AsyncPolicy", "v1alpha1"),
        definition("backendpolicies", "BackendPolicy", "v1beta9"),
        secret("tidegate-issuer", &certificate(3)?),
        secret("tidegate-webhook-tls", &webhook),
        lease,
        deployment(),
    ] {
        cluster.apply(&object.to_string())?;
    }
    lab::until("the service account of the namespace", std::time::Duration::from_secs(30), || {
        Ok(cluster.kubectl(&["-n", "shop", "get", "serviceaccount", "default"]).ok().map(drop))
    })?;
    cluster.apply(&pod.to_string())?;
    // From now on no pod is made there: nobody answers the webhook.
    cluster.apply(&hooks(&other).to_string())?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/asyncpolicies.tidegate.dev",
        "--timeout=30s",
    ])?;
    let policy = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "AsyncPolicy",
        "metadata": {"name": "orders", "namespace": "shop"}, "spec": {},
    });
    cluster.apply(&policy.to_string())?;
    let condition = json!({
        "type": "Accepted", "status": "False", "reason": "TargetNotFound", "message": "no Service orders",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-31T12:00:00Z",
    });
    let status = json!({"status": {"conditions": [condition]}}).to_string();
    cluster.kubectl(&[
        "-n",
        "shop",
        "patch",
        "asyncpolicy",
        "orders",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ])?;

    let tidegate = Tidegate::new(&cluster)?;
    let findings = findings(&tidegate.document(1, &["check", "-o", "json"])?)?;
    found(
        &findings,
        &[
            "ok CustomResourceDefinition asyncpolicies.tidegate.dev: serves v1alpha1",
            "failed CustomResourceDefinition backendpolicies.tidegate.dev: serves v1beta9, this tidegate knows",
            "failed CustomResourceDefinition meshtrusts.tidegate.dev: is not there",
            "failed Deployment tidegate/tidegate-controller: 0 of 1 replica ready",
            "warning replicas of tidegate/tidegate-controller: of version 0.0.9",
            "failed Lease tidegate/tidegate-controller: tidegate-controller-x has not renewed it for",
            "failed Secret tidegate/tidegate-issuer: ends in 3 days",
            "ok Secret tidegate/tidegate-webhook-tls: ends in 90 days",
            "its caBundle is not that of Secret tidegate-webhook-tls",
            "failed Service tidegate/tidegate-controller: no ready endpoint: pods that ask for a sidecar cannot",
            "failed Namespace shop: asks for sidecars of Linkerd too",
            "failed Pod shop/bare: 1 pod without sidecar",
            "unknown proxies: no controller is ready",
            "failed AsyncPolicy shop/orders: Accepted is False (TargetNotFound): no Service orders",
        ],
    )?;
    // The right bundle, and it is no longer told.
    cluster.apply(&hooks(&webhook).to_string())?;
    let said = tidegate.says(1, &["check"])?;
    holds(&said, &["caBundle is that of its Secret, failurePolicy Fail"])
}
