//! `linnet serve`: production. Reads one configuration file, refuses what it does not understand, prints no secrets.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use linnet_runtime::config::Layers;
use linnet_runtime::{Clock, telemetry};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Config;
use crate::http;
use crate::node::Node;
use crate::output::{Exit, Failure};
use crate::roles::Roles;

/// Options of `linnet serve`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  linnet serve --print-config")]
pub(crate) struct ServeArgs {
    /// Services this process runs, separated by commas: gateway, api, session, account, group, message-store, push,
    /// callback; or all of them.
    #[arg(long, value_name = "ROLES", default_value = "all")]
    pub(crate) role: Roles,
    #[command(flatten)]
    pub(crate) options: ServeOptions,
}

/// What every serving process is told.
#[derive(Args, Debug)]
pub(crate) struct ServeOptions {
    /// Configuration file (TOML), of one shape for all services. `linnet config docs` is its reference.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One value over file and environment, for example `server.listen="0.0.0.0:8080"`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Print the values in force, with the layer each comes from, and end.
    #[arg(long)]
    print_config: bool,
}

/// Runs until it is told to stop.
///
/// # Errors
/// When it cannot start; the message says what to do.
pub(crate) async fn run(roles: Roles, args: ServeOptions) -> Result<Exit> {
    let clock = Clock::system();
    let begun = clock.mono();
    let mut layers = Layers::new();
    if let Some(file) = &args.config {
        layers = layers.file(file);
    }
    let loaded = layers.env(std::env::vars()).overrides(&args.overrides).load::<Config>();
    let loaded = loaded.map_err(|problems| {
        let todo = "correct every line above; `linnet config docs` is the reference";
        Failure::usage("the configuration is not valid", problems.to_string(), todo)
    })?;
    if args.print_config {
        print!("{}", loaded.print());
        return Ok(Exit::Done);
    }
    let config = loaded.config;
    let telemetry = telemetry::init("linnet", &config.log)?;
    let address = config.server.listen.parse().context("server.listen")?;
    let listener = linnet_gateway::listen(address).map_err(|why| {
        Failure::refused(
            format!("cannot listen on {address}"),
            why.to_string(),
            "free the port or change server.listen",
        )
    })?;
    let tls = tls(&config)?;
    let node = Node::start(&config, &roles, &config.server.data, clock).await?;
    let site = node.site(config.server.operator_token.clone(), begun, None, config.server.operators_anywhere);
    let ready_ms = site.ready_ms;
    let http = http::serve(listener, tls, site, &node.tasks);
    tracing::info!(%address, %roles, ready_ms, "ready");
    node.run(http, telemetry).await?;
    Ok(Exit::Done)
}

fn tls(config: &Config) -> Result<Option<Arc<ServerConfig>>> {
    let (cert, key) = (&config.server.tls_cert, &config.server.tls_key);
    if cert.as_os_str().is_empty() {
        return Ok(None);
    }
    let chain = CertificateDer::pem_file_iter(cert).with_context(|| format!("cannot read {}", cert.display()))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().with_context(|| format!("{} is no PEM", cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("cannot read {}", key.display()))?;
    let mut server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(Arc::new(server)))
}
