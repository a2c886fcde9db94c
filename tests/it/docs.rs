//! What is generated is what is committed.

use anyhow::Result;
use linnet_testkit::{Server, Socket};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_reference_is_up_to_date() -> Result<()> {
    let server = Server::start()?;
    let out = server.cli(&["config", "docs"])?;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config.md"))?;
    let now = String::from_utf8(out.stdout)?;
    let first = now.lines().zip(page.lines()).find(|(now, page)| now != page);
    assert!(first.is_none() && now.len() == page.len(), "run: linnet config docs > docs/config.md; {first:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_private_authority_and_other_names() -> Result<()> {
    use linnet_testkit::Options;
    let args = ["--tls", "--tls-name", "console.tim.qq.com"].map(str::to_owned).to_vec();
    let mut server = Server::with(Options { args, ..Options::default() })?;
    let query = server.rest().query().to_owned();
    let ca = std::fs::read(server.ca().expect("a CA file"))?;
    let port = server.base().rsplit(':').next().expect("a port").parse()?;
    let client = |name: &str| -> Result<reqwest::Client> {
        Ok(reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca)?])
            .resolve(name, std::net::SocketAddr::from(([127, 0, 0, 1], port)))
            .build()?)
    };
    let url = |name: &str| format!("https://{name}:{port}/v4/im_open_login_svc/account_check?{query}");
    let body = json!({ "CheckItem": [{ "UserID": "administrator" }] }).to_string();
    for name in ["localhost", "console.tim.qq.com"] {
        let reply = client(name)?.post(url(name)).body(body.clone()).send().await?.text().await?;
        assert!(reply.contains("\"Imported\""), "{reply}");
    }
    // A name that the certificate is not for.
    assert!(client("example.com")?.post(url("example.com")).body(body).send().await.is_err());
    assert!(server.ws().starts_with("wss://"));
    // Another start keeps the authority.
    let before = std::fs::read(server.ca().expect("a CA file"))?;
    server.restart()?;
    assert_eq!(before, std::fs::read(server.ca().expect("a CA file"))?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_keep_strangers_out() -> Result<()> {
    let server = Server::start()?;
    let client = reqwest::Client::new();
    let base = server.base();
    assert_eq!(client.get(format!("{base}/admin/v1/apps")).send().await?.status(), 401);
    let with_key = client.get(format!("{base}/admin/v1/apps")).bearer_auth(server.key()).send().await?;
    assert_eq!(with_key.status(), 401, "an app's key is no operator token");
    for probe in ["healthz", "readyz", "metrics"] {
        assert_eq!(client.get(format!("{base}/{probe}")).send().await?.status(), 200, "{probe}");
    }
    let metrics = client.get(format!("{base}/metrics")).send().await?.text().await?;
    assert!(metrics.contains("linnet_"), "{metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_playground_keeps_strangers_out() -> Result<()> {
    use linnet_testkit::Options;
    let server = Server::with(Options { demo: true, ..Options::default() })?;
    let client = reqwest::Client::new();
    let base = server.base();
    let rebound = client.get(format!("{base}/play/config.json")).header("host", "evil.example").send().await?;
    assert_eq!(rebound.status(), 403);
    let cross = client.get(format!("{base}/play/config.json")).header("origin", "http://evil.example").send().await?;
    assert_eq!(cross.status(), 403);
    assert_eq!(client.get(format!("{base}/play/config.json")).send().await?.status(), 200);
    Ok(())
}

/// Neither texts nor sigs nor keys are in any log line, at the most talkative level.
#[tokio::test(flavor = "multi_thread")]
async fn logs_carry_no_secrets() -> Result<()> {
    use linnet_testkit::Options;
    let env =
        vec![("LINNET_LOG__FILTER".to_owned(), "trace,h2=info,hyper=info,hyper_util=info,tungstenite=info".to_owned())];
    let server = Server::with(Options { env, ..Options::default() })?;
    server.rest().import(&["alice", "bob"]).await;
    let mut alice = Socket::sign_in(&server, "alice", "Web").await?;
    alice.say("C2C:bob", 1, "a-secret-of-alice").await?;
    let log = server.log()?;
    assert!(!log.is_empty(), "the level was set");
    for (what, secret) in [("text", "a-secret-of-alice"), ("key", server.key()), ("sig", &server.sig("alice")[..40])] {
        assert!(!log.contains(secret), "the {what} is in the log");
    }
    Ok(())
}
