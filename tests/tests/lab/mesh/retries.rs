//! retries: how long a request may take, and which are tried again.

use anyhow::{Result, ensure};

use super::ask::{ask_once, expect};
use super::town::Town;

#[test]
fn a_request_that_takes_longer_than_its_rule_allows_is_answered_504() -> Result<()> {
    let town = Town::new()?;
    let rules = "  - matches: [{ headers: [{ name: hasty, value: request }] }]
    timeouts: { request: 200ms }
    backendRefs: [{ name: echo-v1, port: 80 }]
  - matches: [{ headers: [{ name: hasty, value: attempt }] }]
    timeouts: { backendRequest: 200ms }
    backendRefs: [{ name: echo-v1, port: 80 }]
  - backendRefs: [{ name: echo-v2, port: 80 }]";
    town.route("hasty", "name: echo", rules)?;
    let late = "error=http_response_timeout";
    let hasty = ["-H", "hasty: request", "http://echo/slow/3"];
    expect(&town.client, &["-H", "hasty: request", "http://echo/"], |reply| reply.server() == "echo-v1")?;
    for client in town.clients() {
        let args = ["-w", "%{time_total}", "-o", "/dev/null", "-sS"];
        let seconds: f64 = client.run(client.command("curl").args(args).args(hasty))?.trim().parse()?;
        ensure!((0.19..1.5).contains(&seconds), "the answer came after {seconds} s");
        let reply = ask_once(client, &hasty)?;
        ensure!(reply.is_told(504, &[late]), "{reply:#?}");
        let reply = ask_once(client, &[&["-d", "x"], &hasty[..]].concat())?;
        ensure!(reply.is_told(504, &[late]), "{reply:#?}");
        let reply = ask_once(client, &["-H", "hasty: attempt", "http://echo/slow/3"])?;
        ensure!(reply.is_told(504, &[late]), "{reply:#?}");
        // The rule that says nothing waits.
        let reply = ask_once(client, &["http://echo/slow/0.5"])?;
        ensure!(reply.status == 200 && reply.server() == "echo-v2", "{reply:#?}");
    }
    Ok(())
}

#[test]
fn a_get_is_tried_again_on_the_codes_of_its_rule_and_a_post_is_not() -> Result<()> {
    let town = Town::new()?;
    let rules = "  - matches: [{ headers: [{ name: again, value: 'no' }] }]
    backendRefs: [{ name: echo-v1, port: 80 }]
  - retry: { attempts: 3, codes: [503], backoff: 5ms }
    backendRefs: [{ name: echo-v1, port: 80 }]";
    town.route("again", "name: echo", rules)?;
    expect(&town.client, &["http://echo/"], |reply| reply.server() == "echo-v1")?;
    let check = |args: &[&str], path: &str, key: &str, status: u16, attempts: u64| -> Result<()> {
        let before = town.taken(&town.v1, path)?;
        let url = format!("http://echo{path}?key={key}");
        let reply = ask_once(&town.client, &[args, &[&url]].concat())?;
        let taken = town.taken(&town.v1, path)? - before;
        ensure!(reply.status == status && taken == attempts, "{args:?} {url}: {taken} attempts, {reply:#?}");
        // What the server said is passed on as it is, and the last of it.
        ensure!(reply.server() == "echo-v1", "{reply:#?}");
        Ok(())
    };
    check(&[], "/fail/2", "get", 200, 3)?;
    check(&["-X", "PUT", "-d", "body"], "/fail/1", "put", 200, 2)?;
    check(&["-X", "POST", "-d", "body"], "/fail/2", "post", 503, 1)?;
    check(&[], "/fail/9", "long", 503, 4)?;
    check(&[], "/status/500", "other", 500, 1)?;
    check(&["-H", "again: no"], "/fail/2", "never", 503, 1)?;
    let retries = town.sidecars[2].metric("tidegate_request_retries_total", &[("reason", "response")])?;
    ensure!((retries - 6.0).abs() < 0.5, "{retries} retries are counted instead of 6");
    Ok(())
}
