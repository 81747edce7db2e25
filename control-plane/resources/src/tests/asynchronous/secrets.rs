//! secrets: the key that callbacks are signed with, read from a Secret and shown nowhere.

use super::*;

#[test]
fn a_callback_names_hosts_and_a_secret_and_never_holds_one() {
    refused(&[
        ("{callback: {secretRef: {name: a}}}", "spec.callback.allowedHosts: is missing"),
        ("{callback: {allowedHosts: [], secretRef: {name: a}}}", "spec.callback.allowedHosts: is empty"),
        ("{callback: {allowedHosts: [a]}}", "spec.callback.secretRef: is missing"),
        (
            "{callback: {allowedHosts: ['*'], secretRef: {name: a}}}",
            "spec.callback.allowedHosts[0]: \"*\" is not a",
        ),
        (
            "{callback: {allowedHosts: ['a:80'], secretRef: {name: a}}}",
            "allowedHosts[0]: \"a:80\" is not a DNS name",
        ),
        (
            "{callback: {allowedHosts: ['a.*.b'], secretRef: {name: a}}}",
            "allowedHosts[0]: \"a.*.b\" is not a DNS",
        ),
    ]);
    for inline in [format!("{{name: {KEY}}}"), KEY.to_owned(), format!("{{name: a, {KEY}: b}}")] {
        let spec = format!("{{callback: {{allowedHosts: [a], secretRef: {inline}}}}}");
        let problem = one_problem(&policy("p", &spec));
        assert!(problem.contains("spec.callback.secretRef"), "{problem}");
        // A field's name is told; a value never.
        assert_eq!(problem.contains(KEY), inline.contains(&format!("{KEY}:")), "{problem}");
    }
}

#[test]
fn a_secret_gives_its_signing_key_and_nothing_else() {
    assert_eq!(signing_key(&format!("stringData: {{secret: {KEY}}}")).unwrap(), KEY);
    // echo whsec_... | base64
    let encoded = "d2hzZWNfTWZLUTlyOEdLWXFyVHdqVVBEOElMUFpJbzJMYUxhU3cK";
    assert_eq!(signing_key(&format!("type: Opaque\ndata: {{secret: {encoded}}}")).unwrap(), KEY);
    assert_eq!(
        signing_key("stringData: {secret: twenty-four-bytes-of-key}").unwrap(),
        "whsec_dHdlbnR5LWZvdXItYnl0ZXMtb2Yta2V5"
    );
    let fields = format!("data: {{secret: AAAA}}\nstringData: {{secret: {KEY}}}");
    assert_eq!(signing_key(&fields).unwrap(), KEY, "stringData goes before data");
    for (fields, error) in [
        ("", SigningKeyError::Missing),
        ("data: {tls.crt: AAAA}", SigningKeyError::Missing),
        ("data: text", SigningKeyError::Missing),
        ("data: {secret: '%'}", SigningKeyError::Form),
        ("data: {secret: 5}", SigningKeyError::Form),
        ("stringData: {secret: short}", SigningKeyError::Form),
        ("stringData: {secret: whsec_AAAA}", SigningKeyError::Form),
        ("stringData: {secret: whsec_%%%%%%%%%%%%%%%%%%%%%%%%%%%%}", SigningKeyError::Form),
    ] {
        assert_eq!(signing_key(fields), Err(error), "{fields}");
    }
}

#[test]
fn a_secret_is_shown_nowhere() {
    let annotated = secret(&format!("stringData: {{secret: {KEY}}}"))
        .replace("namespace: shop", &format!("namespace: shop, annotations: {{last-applied: '{KEY}'}}"));
    let shown = format!("{:?}", objects(&annotated));
    assert!(shown.contains("(secret)") && !shown.contains("whsec_"), "{shown}");
    for broken in [
        secret(&format!("stringData: {{secret: {KEY}: b}}")),
        secret(&format!("stringData: {{secret: *{KEY}}}")),
        secret(&format!("stringData: {{{KEY}: a, {KEY}: b}}")),
        secret(&format!("stringData: [\"{KEY}")),
        secret("").replace("kind: Secret", &format!("kind: Secret\napiVersion: \"{KEY}")),
        secret("").replace("{name: key, namespace: shop}", KEY),
    ] {
        let (objects, problems) = parse_file("a.yaml", &broken);
        assert!(objects.is_empty() && problems.len() == 1, "{objects:?} {problems:?}");
        assert!(!problems[0].to_string().contains("whsec_"), "{}", problems[0]);
    }
}

#[test]
fn a_secret_that_is_missing_or_no_key_leaves_the_policy_without_callbacks_and_says_so() {
    let spec = "{targetRefs: [{name: orders}], callback: {allowedHosts: [a], secretRef: {name: key}}}";
    let text = policy("p", spec) + SERVICE + "---\n";
    let at = "a.yaml:1: AsyncPolicy shop/p: spec.callback.secretRef: ";
    assert_eq!(one(&text), format!("{at}there is no Secret shop/key: the policy holds without callbacks"));
    assert_eq!(
        one(&(text.clone() + &secret(""))),
        format!(
            "{at}Secret shop/key has no key \"secret\" (whsec_ and the base64 of a key of 24 to 64 bytes): the policy \
             holds without callbacks"
        )
    );
    let problem = one(&(text.clone() + &secret("stringData: {secret: hunter2}")));
    assert!(
        problem.contains("holds under \"secret\" neither whsec_") && !problem.contains("hunter2"),
        "{problem}"
    );
    assert_eq!(problems(&(text + &secret(&format!("stringData: {{secret: {KEY}}}")))), [""; 0]);
}
