//! webhooks: whether the API server can ask us, and what happens to pods when it cannot.

use std::fmt::Debug;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::certificates::{self, certificates};
use super::controller;
use super::finding::Finding;
use crate::answer::{Unanswered, answered, every};
use crate::print::count;

const INJECTOR: &str = "tidegate-injector";
const VALIDATOR: &str = "tidegate-validator";

/// One webhook of a configuration.
#[derive(Debug)]
struct Hook {
    config: WebhookClientConfig,
    fails: bool,
}

/// Looks at both configurations and at who answers them.
pub(super) async fn look(client: &Client, namespace: &str) -> Vec<Finding> {
    let kept = certificates::read(client, namespace, certificates::WEBHOOK).await;
    let authorities = kept.certificates("ca.crt");
    let injector = configuration(client, INJECTOR, |found: MutatingWebhookConfiguration| {
        let hooks = found.webhooks.into_iter().flatten();
        hooks
            .map(|hook| Hook { fails: fails(hook.failure_policy.as_deref()), config: hook.client_config })
            .collect()
    });
    let injector = injector.await;
    let validator = configuration(client, VALIDATOR, |found: ValidatingWebhookConfiguration| {
        let hooks = found.webhooks.into_iter().flatten();
        hooks
            .map(|hook| Hook { fails: fails(hook.failure_policy.as_deref()), config: hook.client_config })
            .collect()
    });
    let validator = validator.await;
    let blocks = injector.as_ref().is_ok_and(|hooks| hooks.iter().flatten().any(|hook| hook.fails));
    let object = |name: &str, kind: &str| format!("{kind}WebhookConfiguration {name}");
    let mut findings = vec![
        trusted(object(INJECTOR, "Mutating"), injector, &authorities, true),
        trusted(object(VALIDATOR, "Validating"), validator, &authorities, false),
    ];
    findings.push(answers(client, namespace, blocks).await);
    findings
}

/// Kubernetes' default is to fail.
fn fails(policy: Option<&str>) -> bool {
    policy != Some("Ignore")
}

async fn configuration<K>(
    client: &Client,
    name: &str,
    hooks: impl Fn(K) -> Vec<Hook>,
) -> Result<Option<Vec<Hook>>, Unanswered>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    Ok(answered(api.get_opt(name)).await?.map(hooks))
}

/// Whether the API server is told whom to trust, and the right one.
fn trusted(
    object: String,
    hooks: Result<Option<Vec<Hook>>, Unanswered>,
    authorities: &[Vec<u8>],
    is_needed: bool,
) -> Finding {
    let hooks = match hooks {
        Ok(Some(hooks)) => hooks,
        Ok(None) if is_needed => {
            let remedy = "tidegate install, or helm upgrade";
            return Finding::failed(object, "is not there: no pod is given a sidecar", remedy);
        }
        Ok(None) => return Finding::ok(object, "is not there: the CRDs' own rules hold alone"),
        Err(error) => return Finding::unknown(object, error.to_string()),
    };
    let remedy = "the leading controller writes it: see its log for what keeps it from that";
    let known = |hook: &Hook| {
        let bundle = hook.config.ca_bundle.as_ref().map(|bundle| certificates(&bundle.0));
        bundle.filter(|bundle| !bundle.is_empty())
    };
    let bundles: Option<Vec<_>> = hooks.iter().map(known).collect();
    let Some(bundles) = bundles else {
        return Finding::failed(object, "has no caBundle: the API server trusts nobody there", remedy);
    };
    let matches = |bundle: &Vec<Vec<u8>>| authorities.iter().all(|authority| bundle.contains(authority));
    if !bundles.iter().all(matches) {
        let said = format!("its caBundle is not that of Secret {}", certificates::WEBHOOK);
        return Finding::failed(object, said, remedy);
    }
    let policy = if hooks.iter().any(|hook| hook.fails) { "Fail" } else { "Ignore" };
    let compared = if authorities.is_empty() { "is set" } else { "is that of its Secret" };
    Finding::ok(object, format!("caBundle {compared}, failurePolicy {policy}"))
}

/// Whether somebody is there to be asked.
async fn answers(client: &Client, namespace: &str, blocks: bool) -> Finding {
    let object = format!("Service {namespace}/{}", controller::NAME);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let which = ListParams::default().labels(&format!("kubernetes.io/service-name={}", controller::NAME));
    let mut ready = 0;
    let looked = every(&slices, which, |slice: EndpointSlice| {
        let is_ready = |conditions: Option<bool>| conditions.unwrap_or(true);
        let endpoints = slice.endpoints.iter().flatten();
        ready += endpoints.filter(|at| is_ready(at.conditions.as_ref().and_then(|c| c.ready))).count();
    });
    if let Err(error) = looked.await {
        return Finding::unknown(object, error.to_string());
    }
    if ready > 0 {
        return Finding::ok(object, count(ready, "ready endpoint"));
    }
    let meanwhile = if blocks {
        "no ready endpoint: pods that ask for a sidecar cannot be made (failurePolicy Fail)"
    } else {
        "no ready endpoint: pods that ask for a sidecar run without (failurePolicy Ignore)"
    };
    Finding::failed(object, meanwhile, format!("kubectl -n {namespace} get pods, and why none is ready"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::super::finding::Level;
    use super::*;

    fn pem(content: &str) -> Vec<u8> {
        format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n").into_bytes()
    }

    fn hooks(bundle: Option<Vec<u8>>) -> Result<Option<Vec<Hook>>, Unanswered> {
        let config = WebhookClientConfig { ca_bundle: bundle.map(ByteString), ..Default::default() };
        Ok(Some(vec![Hook { config, fails: true }]))
    }

    #[test]
    fn a_bundle_must_hold_what_vouches_for_the_webhook() {
        let secret = certificates(&pem("QUFB"));
        let level = |hooks| trusted("w".to_owned(), hooks, &secret, true).level;
        assert_eq!(level(hooks(Some([pem("QUFB"), pem("QkJC")].concat()))), Level::Ok);
        assert_eq!(level(hooks(Some(pem("QkJC")))), Level::Failed);
        assert_eq!(level(hooks(None)), Level::Failed);
        assert_eq!(level(Ok(None)), Level::Failed);
        assert_eq!(trusted("w".to_owned(), Ok(None), &secret, false).level, Level::Ok);
    }
}
