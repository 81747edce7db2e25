//! http1: HTTP/1 in all its spellings, between curl, wrk and nginx.

use anyhow::{Context, Result, ensure};
use lab::Process;
use lab::manifests::Port;

use super::{Pair, curl, curl_ok, nginx};

/// nginx on 80 and the echo on 81.
fn pair() -> Result<(Pair, Vec<Process>)> {
    let ports = [Port::new("http", 80, 8080).speaking("http"), Port::new("echo", 81, 8081)];
    Pair::new(&ports, |world, shop| {
        let (nginx, folder) = nginx(
            world,
            shop,
            r#"server {
                 listen 8080;
                 location = /empty { return 204; }
                 location = /narrow { client_max_body_size 1k; proxy_pass http://127.0.0.1:8081; }
                 location = /about {
                   return 200 "method=$request_method protocol=$server_protocol host=$http_host uri=$request_uri length=$content_length body=$request_body large=$http_x_large\n";
                 }
               }"#,
        )?;
        std::fs::write(folder.join("www/page.txt"), "a page\n")?;
        Ok(vec![nginx, shop.serve("http_echo.py", &["--listen", "0.0.0.0:8081", "--name", "shop"])?])
    })
}

#[test]
fn methods_and_statuses_pass_as_they_are() -> Result<()> {
    let (pair, _servers) = pair()?;
    let web = &pair.web;
    ensure!(curl_ok(web, &["http://shop/page.txt"])? == "a page\n");
    let head = curl_ok(web, &["-I", "http://shop/page.txt"])?;
    ensure!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("content-length: 7"), "{head}");

    let status = ["-o", "/dev/null", "-w", "%{http_code} %{size_download}"];
    let ask = |args: &[&str]| curl_ok(web, &[&status, args].concat());
    ensure!(ask(&["http://shop/empty"])? == "204 0");
    ensure!(ask(&["http://shop/nothing"])?.starts_with("404 "));
    let etag = head.lines().find_map(|line| {
        let (name, tag) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("etag").then_some(tag.trim())
    });
    let etag = format!("If-None-Match: {}", etag.context("nginx tells an ETag")?);
    ensure!(ask(&["-H", &etag, "http://shop/page.txt"])? == "304 0");

    let posted = curl_ok(web, &["-d", "abcde", "http://shop/about"])?;
    ensure!(posted.contains("method=POST protocol=HTTP/1.1 host=shop uri=/about length=5"), "{posted}");
    pair.assert_proven(6.0)
}

#[test]
fn expect_100_continue_is_answered_before_the_body() -> Result<()> {
    let (pair, _servers) = pair()?;
    let body = pair.world.lab.folder().join("body");
    std::fs::write(&body, vec![b'x'; 300_000])?;
    let data = format!("@{}", body.display());
    // Without the interim answer curl would wait these ten seconds.
    let args = ["-v", "--expect100-timeout", "10", "-w", "\n%{time_total}", "-H", "Expect: 100-continue"];
    for port in [80, 81] {
        let url = format!("http://shop:{port}/about");
        let output = curl(&pair.web, &[&args[..], &["--data-binary", &data, &url]].concat())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let trace = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(trace.contains("< HTTP/1.1 100 Continue"), "port {port}: {trace}\n{said}");
        let (body, seconds) = said.rsplit_once('\n').context("curl prints the time")?;
        ensure!(body.contains("300000"), "port {port}: {body}");
        ensure!(seconds.parse::<f64>()? < 5.0, "port {port} took {seconds} s");
    }
    pair.assert_proven(2.0)
}

#[test]
fn a_body_the_server_does_not_want_is_refused_by_it() -> Result<()> {
    let (pair, _servers) = pair()?;
    let body = pair.world.lab.folder().join("body");
    std::fs::write(&body, vec![b'x'; 8_000_000])?;
    let data = format!("@{}", body.display());
    // The sidecar itself answers 100: the refusal meets a body on its way, asked before or not.
    for expect in ["Expect: 100-continue", "Expect:"] {
        let args = ["-i", "-H", expect, "--data-binary", &data, "http://shop/narrow"];
        let said = curl_ok(&pair.web, &args)?;
        ensure!(said.contains("HTTP/1.1 413 ") && said.contains("nginx"), "{expect} {said}");
        ensure!(!said.to_lowercase().contains("\nproxy-status"), "{expect} {said}");
    }
    let said = curl_ok(&pair.web, &["-d", "little", "http://shop/narrow"])?;
    ensure!(said.contains("\"body_bytes\": 6"), "{said}");
    pair.assert_proven(3.0)
}

#[test]
fn a_request_arrives_as_it_was_said() -> Result<()> {
    let (pair, _servers) = pair()?;
    let path = "/a%2Fb//c;d=1/../e%20f?x=%2B+&y&z=%C3%BC";
    let url = format!("http://shop:81{path}");
    let said = ["-H", "Host: other.example", "-H", "X-Twice: one", "-H", "X-Twice: two", "-H", "X-Empty;"];
    let rest = ["-H", "Cookie: a=1; b=2", "-H", "X-Bytes: \u{fc}", "--path-as-is", &url];
    let said = curl_ok(&pair.web, &[&said[..], &rest].concat())?;
    let said: serde_json::Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    ensure!(said["path"] == path, "{said}");
    let headers = said["headers"].as_array().context("it tells the headers")?;
    let all = |name: &str| -> Vec<&str> {
        let named = headers.iter().filter(|pair| pair[0] == name);
        named.filter_map(|pair| pair[1].as_str()).collect()
    };
    ensure!(all("host") == ["other.example"], "{said}");
    ensure!(all("x-twice") == ["one", "two"] || all("x-twice") == ["one, two"], "{said}");
    ensure!(all("x-empty") == [""] && all("cookie") == ["a=1; b=2"], "{said}");
    // Two bytes of UTF-8, which Python shows as Latin-1.
    ensure!(all("x-bytes") == ["\u{c3}\u{bc}"], "{said}");
    pair.assert_proven(1.0)
}

#[test]
fn http10_passes_with_and_without_host() -> Result<()> {
    let (pair, _servers) = pair()?;
    for host in ["Host: shop", "Host:"] {
        let said = curl_ok(&pair.web, &["--http1.0", "-i", "-H", host, "http://shop/page.txt"])?;
        ensure!(said.contains(" 200 OK") && said.ends_with("\r\n\r\na page\n"), "{host} {said}");
    }
    let said = curl_ok(&pair.web, &["--http1.0", "-H", "Host:", "http://shop:81/x"])?;
    ensure!(said.contains("\"path\": \"/x\""), "{said}");
    pair.assert_proven(3.0)
}

#[test]
fn absolute_form_is_understood() -> Result<()> {
    let (pair, _servers) = pair()?;
    for port in [80, 81] {
        let (target, url) = (format!("http://shop:{port}/about?a=1"), format!("http://shop:{port}/"));
        let said = curl_ok(&pair.web, &["-i", "--request-target", &target, &url])?;
        ensure!(said.starts_with("HTTP/1.1 200"), "port {port}: {said}");
        ensure!(said.contains("/about?a=1"), "port {port}: {said}");
    }
    pair.assert_proven(2.0)
}

#[test]
fn a_connection_is_kept_alive() -> Result<()> {
    let (pair, _servers) = pair()?;
    let url = "http://shop/page.txt";
    let said = curl_ok(&pair.web, &["-w", "%{num_connects},", url, url, url])?;
    ensure!(said == "a page\n1,a page\n0,a page\n0,", "{said}");
    pair.assert_proven(3.0)
}

#[test]
fn chunks_and_trailers_pass_both_ways() -> Result<()> {
    let ports = [Port::new("http", 80, 8080), Port::new("echo", 81, 8081)];
    let (pair, _servers) = Pair::new(&ports, |_, shop| {
        Ok(vec![
            shop.serve("raw_http.py", &["serve", "0.0.0.0:8080"])?,
            shop.serve("http_echo.py", &["--listen", "0.0.0.0:8081"])?,
        ])
    })?;
    let said = pair.web.ask("raw_http.py", &["send", "shop:80"])?;
    ensure!(said["status"] == 200, "{said}");
    ensure!(said["request_body"] == "hello world" && said["request_trailer"] == "sent", "{said}");
    ensure!(said["response_body"] == "first second" && said["response_trailer"] == "answered", "{said}");

    // A client of HTTP/1.0 knows no chunks.
    let said = curl_ok(&pair.web, &["--http1.0", "-i", "http://shop/"])?;
    ensure!(said.ends_with("\r\n\r\nfirst second"), "{said}");
    ensure!(!said.to_lowercase().contains("transfer-encoding"), "{said}");

    // A client that hesitates on a port without a protocol is still one of HTTP.
    let said = pair.web.ask("raw_http.py", &["send", "shop:80", "0.3"])?;
    ensure!(said["status"] == 200 && said["request_body"] == "hello world", "{said}");

    // A real client's chunks, from its standard input.
    let script = "head -c 1000000 /dev/zero | curl -sS --max-time 20 -T - http://shop:81/";
    let said = pair.web.run(pair.web.command("sh").args(["-c", script]))?;
    ensure!(said.contains("\"body_bytes\": 1000000") && said.contains("\"PUT\""), "{said}");
    pair.assert_proven(4.0)
}

#[test]
fn large_headers_pass() -> Result<()> {
    let (pair, _servers) = pair()?;
    for kib in [4, 16, 48] {
        let value = "v".repeat(kib * 1024);
        let said = curl_ok(&pair.web, &["-H", &format!("X-Large: {value}"), "http://shop/about"])?;
        ensure!(said.contains(&format!("large={value}\n")), "{kib} KiB: {}", &said[..said.len().min(300)]);
    }
    pair.assert_proven(3.0)
}

#[test]
fn a_crowd_of_requests_has_no_failure() -> Result<()> {
    let (pair, _servers) = pair()?;
    let mut command = pair.web.command("wrk");
    let said = pair.web.run(command.args(["-t1", "-c16", "-d3s", "--latency", "http://shop/page.txt"]))?;
    println!("{said}");
    ensure!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in "));
    let requests: f64 = requests.context("wrk counts")?.0.parse()?;
    ensure!(requests > 100.0, "{said}");
    pair.assert_proven(requests)
}
