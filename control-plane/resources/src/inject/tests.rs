//! tests: pods go in, injected pods come out.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn settings(text: &str) -> Settings {
    Settings::parse(text).unwrap()
}

fn asked() -> Surroundings {
    Surroundings { namespace_says: Some("enabled".to_owned()), server_minor: Some(36) }
}

fn pod(annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "orders-0", "namespace": "shop", "annotations": annotations},
        "spec": {
            "containers": [{
                "name": "app", "image": "app",
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}}
            }],
            "initContainers": [{"name": "migrate", "image": "app"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "orders"}}]
        }
    })
}

/// `pod` with its sidecar, and the warnings.
fn injected_with(pod: &Value, settings: &Settings) -> (Value, Vec<String>) {
    match inject(pod, &asked(), settings) {
        Verdict::Injected { pod, warnings } => (pod, warnings),
        other => panic!("not injected: {other:?}"),
    }
}

fn injected(annotations: &Value) -> Value {
    injected_with(&pod(annotations), &settings("")).0
}

fn refused(annotations: &Value) -> String {
    match inject(&pod(annotations), &asked(), &settings("")) {
        Verdict::Refused(why) => why,
        other => panic!("not refused: {other:?}"),
    }
}

fn env<'a>(pod: &'a Value, name: &str) -> &'a str {
    let env = pod["spec"]["initContainers"][1]["env"].as_array().unwrap();
    let found = env.iter().find(|variable| variable["name"] == name);
    found.and_then(|variable| variable["value"].as_str()).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn the_rules_come_first_then_the_sidecar_then_the_pods_own() {
    let pod = injected(&json!({}));
    let init = pod["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<&str> = init.iter().map(|container| container["name"].as_str().unwrap()).collect();
    assert_eq!(names, [REDIRECT_CONTAINER, PROXY_CONTAINER, "migrate"]);
    assert_eq!(init[1]["restartPolicy"], "Always");
    assert_eq!(init[0].get("restartPolicy"), None);
    assert_eq!(pod["metadata"]["annotations"][INJECTED], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_applications_own_fields_stay_as_they_are() {
    let (before, after) = (pod(&json!({})), injected(&json!({})));
    assert_eq!(after["spec"]["containers"], before["spec"]["containers"]);
    assert_eq!(after["spec"]["initContainers"][2], before["spec"]["initContainers"][0]);
    assert_eq!(after["spec"]["volumes"][0], before["spec"]["volumes"][0]);
    assert_eq!(after["spec"].get("terminationGracePeriodSeconds"), None);
    assert_eq!(after["spec"].get("securityContext"), None);
}

#[test]
fn the_sidecar_passes_restricted_and_only_the_rules_need_more() {
    let pod = injected(&json!({}));
    let sidecar = &pod["spec"]["initContainers"][1]["securityContext"];
    let expected = json!({
        "runAsUser": 2102, "runAsGroup": 2102, "runAsNonRoot": true, "privileged": false,
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}
    });
    assert_eq!(*sidecar, expected);
    let redirect = &pod["spec"]["initContainers"][0]["securityContext"];
    assert_eq!(redirect["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    assert_eq!(redirect["runAsUser"], 0);
    assert_eq!(redirect["allowPrivilegeEscalation"], false);
    assert_eq!(redirect["readOnlyRootFilesystem"], true);
}

#[test]
fn the_sidecar_is_probed_on_its_admin_port_and_drains_before_the_application_goes() {
    let pod = injected(&json!({}));
    let sidecar = &pod["spec"]["initContainers"][1];
    for (probe, path) in
        [("startupProbe", "/ready"), ("readinessProbe", "/ready"), ("livenessProbe", "/live")]
    {
        assert_eq!(sidecar[probe]["httpGet"]["path"], path);
        assert_eq!(sidecar[probe]["httpGet"]["port"], 4191);
    }
    assert_eq!(sidecar["lifecycle"]["preStop"]["exec"]["command"], json!(["tidegate-proxy", "drain"]));
    let redirect = pod["spec"]["initContainers"][0]["command"].as_array().unwrap();
    assert!(
        redirect.contains(&json!("--skip-inbound-ports=4191")),
        "the kubelet's probes pass by: {redirect:?}"
    );
}

#[test]
fn it_is_told_where_it_stands_and_what_proves_it() {
    let pod = injected_with(&pod(&json!({})), &settings("{tokenAudience: mine, tokenLifetime: 2h}")).0;
    let variables = pod["spec"]["initContainers"][1]["env"].as_array().unwrap();
    let field = |name: &str| {
        let found = variables.iter().find(|variable| variable["name"] == name).unwrap();
        found["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap().to_owned()
    };
    assert_eq!(field("TIDEGATE_POD_IP"), "status.podIP");
    assert_eq!(field("TIDEGATE_SERVICE_ACCOUNT"), "spec.serviceAccountName");
    assert_eq!(env(&pod, "TIDEGATE_ANCHORS"), "/var/run/tidegate/anchors/anchors.pem");
    let token = &pod["spec"]["volumes"][2]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(*token, json!({"audience": "mine", "expirationSeconds": 7200, "path": "token"}));
    let mounts = pod["spec"]["initContainers"][1]["volumeMounts"].as_array().unwrap();
    assert_eq!(mounts[1]["mountPath"], "/var/run/tidegate/token");
    assert_eq!(env(&pod, "TIDEGATE_TOKEN_FILE"), "/var/run/tidegate/token/token");
}

#[test]
fn the_quota_of_the_queue_is_well_below_its_volume() {
    let pod = injected(&json!({"tidegate.dev/proxy-queue-size": "2Gi"}));
    let queue = &pod["spec"]["volumes"][3];
    assert_eq!(*queue, json!({"name": "tidegate-queue", "emptyDir": {"sizeLimit": "2Gi"}}));
    let quota: u64 = env(&pod, "TIDEGATE_QUEUE_BYTES_MAX").parse().unwrap();
    assert!(quota <= (2 << 30) / 10 * 8 && quota > (2 << 30) / 10 * 7, "{quota}");
}

#[test]
fn a_named_volume_of_the_pod_keeps_the_queue() {
    let named = pod(&json!({"tidegate.dev/proxy-queue-volume": "data"}));
    let (pod, warnings) = injected_with(&named, &settings(""));
    let sidecar = &pod["spec"]["initContainers"][1];
    assert_eq!(sidecar["volumeMounts"][2], json!({"name": "data", "mountPath": "/var/lib/tidegate/queue"}));
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.iter().all(|volume| volume["name"] != "tidegate-queue"));
    assert!(warnings.iter().any(|warning| warning.contains("fsGroup")), "{warnings:?}");
}

#[test]
fn annotations_go_before_the_settings() {
    let pod = injected(&json!({
        "tidegate.dev/proxy-image": "mine:2", "tidegate.dev/proxy-log": "debug",
        "tidegate.dev/proxy-workers": "2", "tidegate.dev/proxy-inbound-port": "14143",
        "tidegate.dev/proxy-inbound-default": "Deny", "tidegate.dev/proxy-strict": "true",
        "tidegate.dev/proxy-drain-grace": "20s", "tidegate.dev/skip-inbound-ports": "22, 9000",
        "tidegate.dev/skip-outbound-ports": "25,3306", "tidegate.dev/proxy-cpu-request": "100m",
        "tidegate.dev/proxy-memory-limit": "1Gi",
    }));
    let [redirect, sidecar] = [0, 1].map(|i| &pod["spec"]["initContainers"][i]);
    let command = redirect["command"].as_array().unwrap();
    for flag in ["--inbound-port=14143", "--skip-inbound-ports=22,4191,9000", "--skip-outbound-ports=25,3306"]
    {
        assert!(command.contains(&json!(flag)), "{flag}: {command:?}");
    }
    assert_eq!((&redirect["image"], &sidecar["image"]), (&json!("mine:2"), &json!("mine:2")));
    for (name, value) in [
        ("TIDEGATE_LOG", "debug"),
        ("TIDEGATE_WORKERS", "2"),
        ("TIDEGATE_INBOUND", "0.0.0.0:14143"),
        ("TIDEGATE_INBOUND_DEFAULT", "Deny"),
        ("TIDEGATE_STRICT", "true"),
        ("TIDEGATE_DRAIN_GRACE", "20s"),
    ] {
        assert_eq!(env(&pod, name), value, "{name}");
    }
    assert_eq!(sidecar["resources"]["requests"]["cpu"], "100m");
    assert_eq!(sidecar["resources"]["limits"]["memory"], "1Gi");
}

#[test]
fn every_bad_value_is_refused_by_its_name_with_what_is_allowed() {
    for (name, value, said) in [
        ("skip-inbound-ports", "80,http", "names \"http\", which is no port"),
        ("skip-outbound-ports", "0", "which is no port"),
        ("opaque-ports", "70000", "which is no port"),
        ("proxy-image", "a b", "is no image"),
        ("proxy-log", "", "is empty"),
        ("proxy-cpu-request", "1.5m", "is no amount of CPU: write 100m"),
        ("proxy-memory-request", "lots", "is no amount of memory: write 64Mi"),
        ("proxy-memory-limit", "0", "is nothing"),
        ("proxy-memory-request", "1Gi", "1Gi is more than the limit of 256Mi"),
        ("proxy-workers", "65", "1 to 64 is allowed"),
        ("proxy-inbound-port", "0", "1 to 65535 is allowed"),
        (
            "proxy-drain-grace",
            "40s",
            "1s to 28s is allowed, or set terminationGracePeriodSeconds (now 30) to 42",
        ),
        ("proxy-inbound-default", "allow", "write Allow or AllowAuthenticated or Deny"),
        ("proxy-strict", "yes", "write true or false"),
        ("proxy-queue-size", "1Mi", "64Mi at least"),
        ("prestop-sleep", "30s", "1s to 29s"),
        ("inject", "on", "write enabled or disabled"),
    ] {
        let annotation = format!("tidegate.dev/{name}");
        let why = refused(&json!({annotation.clone(): value}));
        assert!(why.contains(&annotation) && why.contains(said), "{annotation} {value:?}: {why}");
    }
}

#[test]
fn all_bad_values_are_told_at_once() {
    let why = refused(&json!({"tidegate.dev/proxy-workers": "x", "tidegate.dev/proxy-strict": "y"}));
    assert!(why.contains("proxy-workers") && why.contains("proxy-strict"), "{why}");
}

#[test]
fn an_annotation_that_is_almost_ours_is_a_warning() {
    let misspelled = pod(&json!({"tidegate.dev/proxy-loglevel": "debug"}));
    let (_, warnings) = injected_with(&misspelled, &settings(""));
    assert_eq!(warnings, ["annotation tidegate.dev/proxy-loglevel is not known and does nothing"]);
}

#[test]
fn the_pods_word_goes_before_its_namespaces() {
    let says = |word: &str| pod(&json!({ INJECT: word }));
    let nobody = Surroundings::default();
    let labelled = {
        let mut pod = pod(&json!({}));
        pod["metadata"]["labels"] = json!({ INJECT: "enabled" });
        pod
    };
    let is_injected = |verdict: Verdict| matches!(verdict, Verdict::Injected { .. });
    assert!(is_injected(inject(&says("enabled"), &nobody, &settings(""))));
    assert!(is_injected(inject(&labelled, &nobody, &settings(""))));
    assert!(is_injected(inject(&pod(&json!({})), &asked(), &settings(""))));
    let unchanged = |pod: &Value, around: &Surroundings| inject(pod, around, &settings(""));
    assert_eq!(unchanged(&says("disabled"), &asked()), Verdict::Unchanged(Unchanged::Disabled));
    assert_eq!(unchanged(&pod(&json!({})), &nobody), Verdict::Unchanged(Unchanged::NotAsked));
}

#[test]
fn the_mirror_of_a_static_pod_stays_as_it_is() {
    let mirror = pod(&json!({"kubernetes.io/config.mirror": "0123", INJECT: "enabled"}));
    assert_eq!(inject(&mirror, &asked(), &settings("")), Verdict::Unchanged(Unchanged::Mirror));
}

#[test]
fn a_namespace_asks_by_label_or_annotation_and_the_annotation_goes_first() {
    let says = |metadata: &Value| Surroundings::of_namespace(metadata, None).namespace_says;
    assert_eq!(says(&json!({"annotations": {INJECT: "enabled"}})).as_deref(), Some("enabled"));
    assert_eq!(says(&json!({"labels": {INJECT: "enabled"}})).as_deref(), Some("enabled"));
    let both = json!({"labels": {INJECT: "enabled"}, "annotations": {INJECT: "disabled"}});
    assert_eq!(says(&both).as_deref(), Some("disabled"));
    assert_eq!(says(&json!({"name": "shop"})), None);
}

#[test]
fn a_pod_that_cannot_have_a_sidecar_is_refused_if_it_asked_itself_and_else_left_out() {
    let host = |spec: &'static str, value: Value| move |pod: &mut Value| pod["spec"][spec] = value.clone();
    type Change = Box<dyn Fn(&mut Value)>;
    let container = |change: fn(&mut Value)| -> Change {
        Box::new(move |pod: &mut Value| change(&mut pod["spec"]["containers"][0]))
    };
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(host("hostNetwork", json!(true))), "hostNetwork is true"),
        (Box::new(host("os", json!({"name": "windows"}))), "Windows pod"),
        (
            container(|app| app["name"] = json!("istio-proxy")),
            "belongs to Istio already (container istio-proxy)",
        ),
        (
            Box::new(|pod| pod["metadata"]["annotations"]["linkerd.io/proxy-version"] = json!("2")),
            "belongs to Linkerd already (annotation linkerd.io/proxy-version)",
        ),
        (
            container(|app| app["securityContext"] = json!({"runAsUser": 2102})),
            "container app runs as uid 2102, which is the sidecar's",
        ),
        (
            container(|app| app["ports"] = json!([{"containerPort": 4191}])),
            "container app has port 4191, which the sidecar answers probes and metrics on",
        ),
        (Box::new(host("volumes", json!([{"name": "tidegate-token"}]))), "its volume tidegate-token"),
    ];
    for (change, said) in cases {
        let mut by_namespace = pod(&json!({}));
        change(&mut by_namespace);
        let Verdict::LeftOut { pod: marked, why } = inject(&by_namespace, &asked(), &settings("")) else {
            panic!("{said}: not left out");
        };
        assert!(why.contains(said), "{why}");
        assert_eq!(marked["metadata"]["annotations"][NOT_INJECTED], why);
        assert_eq!(marked["spec"], by_namespace["spec"]);

        let mut by_itself = pod(&json!({ INJECT: "enabled" }));
        change(&mut by_itself);
        let Verdict::Refused(why) = inject(&by_itself, &asked(), &settings("")) else {
            panic!("{said}: not refused");
        };
        assert!(why.contains(said), "{why}");
    }
}

#[test]
fn an_older_server_is_told_by_its_version() {
    let old = Surroundings { server_minor: Some(28), ..asked() };
    let Verdict::Refused(why) = inject(&pod(&json!({ INJECT: "enabled" })), &old, &settings("")) else {
        panic!("not refused");
    };
    assert!(why.contains("1.28, and native sidecars need Kubernetes 1.29: upgrade"), "{why}");
}

#[test]
fn the_sidecars_grace_is_shortened_to_fit_and_the_pods_is_never_changed() {
    let mut short = pod(&json!({}));
    short["spec"]["terminationGracePeriodSeconds"] = json!(10);
    let (pod, warnings) = injected_with(&short, &settings(""));
    assert_eq!(env(&pod, "TIDEGATE_DRAIN_GRACE"), "8s");
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 10);
    assert!(warnings[0].contains("8s instead of 25s"), "{warnings:?}");
}

#[test]
fn only_who_asks_for_it_is_held_back_and_only_where_no_hook_stands() {
    let mut two = pod(&json!({"tidegate.dev/prestop-sleep": "5s"}));
    let own =
        json!({"name": "own", "image": "app", "lifecycle": {"preStop": {"exec": {"command": ["bye"]}}}});
    two["spec"]["containers"].as_array_mut().unwrap().push(own.clone());
    let (pod, _) = injected_with(&two, &settings(""));
    assert_eq!(pod["spec"]["containers"][0]["lifecycle"]["preStop"], json!({"sleep": {"seconds": 5}}));
    assert_eq!(pod["spec"]["containers"][1], own);
}

#[test]
fn a_probe_that_the_sidecar_would_answer_is_a_warning() {
    let mut probed = pod(&json!({}));
    probed["spec"]["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 8080}});
    let (_, warnings) = injected_with(&probed, &settings(""));
    assert!(warnings[0].starts_with("livenessProbe of container app: a tcpSocket probe"), "{warnings:?}");
    probed["metadata"]["annotations"]["tidegate.dev/skip-inbound-ports"] = json!("8080");
    assert_eq!(injected_with(&probed, &settings("")).1, Vec::<String>::new());
}

#[test]
fn every_kind_that_makes_pods_gets_them_injected() {
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "app"}]}});
    let mut items = vec![json!({"kind": "Service", "metadata": {"name": "x"}})];
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"] {
        items.push(json!({"kind": kind, "metadata": {"name": "x"}, "spec": {"template": template}}));
    }
    let job = json!({"spec": {"template": template}});
    items.push(json!({"kind": "CronJob", "metadata": {"name": "x"}, "spec": {"jobTemplate": job}}));
    items.push(json!({"kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}));
    let list = json!({"kind": "List", "items": items});
    let done = inject_document(&list, &asked(), &settings(""));
    assert_eq!(done.verdicts.len(), 7);
    assert!(done.verdicts.iter().all(|(_, verdict)| matches!(verdict, Verdict::Injected { .. })));
    assert_eq!(done.value["items"][0], list["items"][0]);
    let sidecar = |pointer: &str| {
        done.value["items"].pointer(pointer).unwrap()["spec"]["initContainers"][1]["name"].clone()
    };
    for pointer in ["/1/spec/template", "/5/spec/template", "/6/spec/jobTemplate/spec/template", "/7"] {
        assert_eq!(sidecar(pointer), PROXY_CONTAINER, "{pointer}");
    }
}

#[test]
fn what_is_no_pod_at_all_is_refused_or_let_be_without_a_panic() {
    for wrong in [json!({"kind": "Pod", "spec": "text"}), json!({"kind": "Pod"})] {
        assert!(matches!(inject(&wrong, &asked(), &settings("")), Verdict::Refused(_)));
    }
    let wrong = json!({"kind": "Deployment", "metadata": {"name": "x"}, "spec": {"template": "text"}});
    assert_eq!(inject_document(&wrong, &asked(), &settings("")).verdicts, []);
    let odd = json!({"kind": "Pod", "metadata": [], "spec": {"containers": ["text"], "volumes": {}}});
    assert!(matches!(inject(&odd, &asked(), &settings("")), Verdict::Injected { .. } | Verdict::Refused(_)));
}

#[test]
fn settings_are_read_strictly_and_name_the_field() {
    for (text, said) in [
        ("imagination: x", "imagination: is no field here; known are image"),
        ("image: ''", "image: is empty"),
        ("imagePullPolicy: Sometimes", "imagePullPolicy: \"Sometimes\" is not known: write Always"),
        ("controller: nowhere", "controller: \"nowhere\" is not HOST:PORT"),
        ("controllerIdentity: me", "controllerIdentity: \"me\" is not an identity"),
        ("tokenLifetime: 5m", "tokenLifetime: PT5M is out of range"),
        ("cpuRequest: much", "cpuRequest: \"much\" is no amount of CPU"),
        ("memoryRequest: 1Gi", "memoryRequest 1Gi is more than memoryLimit 256Mi"),
        ("workers: 0", "workers: 0 is out of range: 1 to 64"),
        ("inboundDefault: Maybe", "inboundDefault: \"Maybe\" is not known"),
        ("drainGrace: 2h", "drainGrace: PT2H is out of range"),
        ("queueSize: 1Mi", "queueSize: 1Mi is out of range"),
        ("skipInboundPorts: [0]", "skipInboundPorts[0]: 0 is out of range"),
        ("otlpEndpoint: collector", "otlpEndpoint: \"collector\" is not http://"),
        ("[", "this is not YAML"),
    ] {
        let error = Settings::parse(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    let numbers = settings("{cpuRequest: 1, cpuLimit: 2, memoryLimit: none}");
    assert_eq!((numbers.cpu_request.as_str(), numbers.cpu_limit.as_deref()), ("1", Some("2")));
    assert_eq!(numbers.memory_limit, None);
}

#[test]
fn the_controller_is_whom_its_address_names() {
    let identity = |text: &str| settings(text).controller_identity.to_string();
    let elsewhere = "{controller: 'tidegate-controller.mesh.svc.example.org:8086', trustDomain: example.org}";
    assert_eq!(identity(elsewhere), "spiffe://example.org/ns/mesh/sa/tidegate-controller");
    assert_eq!(identity(""), "spiffe://cluster.local/ns/tidegate/sa/tidegate-controller");
    assert_eq!(
        identity("controller: 10.0.0.1:8086"),
        "spiffe://cluster.local/ns/tidegate/sa/tidegate-controller"
    );
}

fn a_pod() -> impl Strategy<Value = Value> {
    let container = ("[a-z]{1,8}", 1024_u16..4000, prop::option::of(0_u32..3000), any::<bool>());
    let container = container.prop_map(|(name, port, uid, hook)| {
        let mut container = json!({"name": name, "image": "x", "ports": [{"containerPort": port}]});
        if let Some(uid) = uid {
            container["securityContext"] = json!({"runAsUser": uid});
        }
        if hook {
            container["lifecycle"] = json!({"preStop": {"exec": {"command": ["bye"]}}});
        }
        container
    });
    let containers = prop::collection::vec(container.clone(), 1..4);
    let init = prop::option::of(prop::collection::vec(container, 0..3));
    let annotations = prop::option::of(prop::sample::subsequence(
        vec![
            ("tidegate.dev/inject", "enabled"),
            ("tidegate.dev/proxy-workers", "3"),
            ("tidegate.dev/proxy-queue-size", "100Mi"),
            ("tidegate.dev/prestop-sleep", "3s"),
            ("tidegate.dev/skip-inbound-ports", "22"),
            ("tidegate.dev/not-injected", "some old reason"),
        ],
        0..=6,
    ));
    let rest = (annotations, prop::option::of(0_u64..90), any::<bool>());
    (containers, init, rest).prop_map(|(containers, init, (annotations, grace, host))| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": containers}});
        if let Some(annotations) = annotations {
            let annotations: std::collections::BTreeMap<_, _> = annotations.into_iter().collect();
            pod["metadata"] = json!({"name": "x", "annotations": annotations});
        }
        if let Some(init) = init {
            pod["spec"]["initContainers"] = json!(init);
        }
        if let Some(grace) = grace {
            pod["spec"]["terminationGracePeriodSeconds"] = json!(grace);
        }
        pod["spec"]["hostNetwork"] = json!(host);
        pod
    })
}

proptest! {
    #[test]
    fn a_second_injection_changes_nothing(pod in a_pod()) {
        let (around, settings) = (asked(), settings("imagePullSecrets: [registry]"));
        match inject(&pod, &around, &settings) {
            Verdict::Injected { pod: once, .. } => {
                prop_assert_eq!(inject(&once, &around, &settings), Verdict::Unchanged(Unchanged::Already));
            }
            Verdict::LeftOut { pod: marked, why } => {
                let again = inject(&marked, &around, &settings);
                prop_assert_eq!(again, Verdict::LeftOut { pod: marked, why });
            }
            Verdict::Refused(_) => {}
            Verdict::Unchanged(why) => prop_assert!(false, "{}", why),
        }
    }

    #[test]
    fn what_the_pod_had_it_still_has(pod in a_pod()) {
        let Verdict::Injected { pod: after, .. } = inject(&pod, &asked(), &settings("")) else { return Ok(()) };
        for own in containers_of(&pod) {
            let kept = containers_of(&after).any(|it| {
                own.as_object().unwrap().iter().all(|(key, value)| key == "lifecycle" || it.get(key) == Some(value))
            });
            prop_assert!(kept, "{}", own["name"]);
        }
        prop_assert_eq!(&pod["spec"]["terminationGracePeriodSeconds"], &after["spec"]["terminationGracePeriodSeconds"]);
    }
}
