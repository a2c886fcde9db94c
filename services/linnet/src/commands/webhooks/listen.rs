//! A receiver of webhooks: takes the app's URL over, prints and answers each event, and puts the URL back at its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use clap::Args;
use linnet_runtime::config::Period;
use linnet_runtime::{Clock, drain};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::commands::admin::Admin;
use crate::commands::{app, text};
use crate::output::{Exit, Failure, Output};

/// What is taken over, in the order it is put back.
const TAKEN: [&str; 3] = ["webhook.events", "webhook.allow_private", "webhook.url"];
/// Events printed late at most; the answer does not wait for the terminal.
const WAITING: usize = 1024;
const BODY: usize = 4 * 1024 * 1024;

/// Receive the app's webhooks here.
///
/// Sets the app's webhook URL and switches every event on; the old values come back at the end (Ctrl-C).
#[derive(Args, Debug)]
#[command(after_help = "A reply file maps commands (or *) to an answer, a delay, or both:
  {\"Group.CallbackBeforeSendMsg\": {\"ActionStatus\":\"OK\",\"ErrorCode\":1,\"ErrorInfo\":\"no\"},
   \"C2C.CallbackBeforeSendMsg\": \"1500ms\",
   \"*\": [\"20ms\", {\"ActionStatus\":\"OK\",\"ErrorCode\":0,\"ErrorInfo\":\"\"}]}
It is read again for each event.

Example, with `linnet dev` running:
  linnet webhooks listen")]
pub(crate) struct ListenArgs {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, value_name = "P", default_value_t = 0)]
    port: u16,
    /// How to answer.
    #[arg(long, value_name = "F")]
    reply: Option<PathBuf>,
    /// Address under which the server reaches this receiver, when it is not on this machine.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// End after this many events.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// An event with the answer it got.
struct Received {
    command: String,
    query: BTreeMap<String, String>,
    body: String,
    answer: Value,
    delay: Duration,
}

struct Receiver {
    reply: Option<PathBuf>,
    printed: mpsc::Sender<Received>,
}

/// # Errors
/// [`Failure`] when the port is taken, the reply file is wrong, or the server refuses.
pub(super) async fn run(args: ListenArgs, admin: &Admin, app: u32, out: Output) -> Result<Exit> {
    if let Some(file) = &args.reply {
        let script = script(file).await.map_err(|why| bad_script(file, &why))?;
        script.iter().try_for_each(|(_, how)| planned(how).map(drop)).map_err(|why| bad_script(file, &why))?;
    }
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await.map_err(|why| {
        let todo = "leave --port out to take a free one";
        Failure::refused(format!("cannot listen on port {}", args.port), why.to_string(), todo)
    })?;
    let url = args.url.clone().unwrap_or_else(|| match listener.local_addr() {
        Ok(address) => format!("http://{address}/"),
        Err(_) => format!("http://127.0.0.1:{}/", args.port),
    });
    let (printed, received) = mpsc::channel(WAITING);
    let state = Arc::new(Receiver { reply: args.reply, printed });
    let router = Router::new().fallback(receive).layer(DefaultBodyLimit::max(BODY)).with_state(state);
    let before = admin.app(app).await?;
    let old = TAKEN.map(|name| (name, before.setting(name)));
    let new = [("webhook.url", url.as_str()), ("webhook.events", "all"), ("webhook.allow_private", "true")];
    // The handler is there once it was polled, and it must be before the app's URL is another.
    let stop = drain::signalled();
    tokio::pin!(stop);
    if futures::poll!(stop.as_mut()).is_ready() {
        return Ok(Exit::Done);
    }
    app::change(admin, app, &app::settings(new)).await?;
    let was = if old[2].1.is_empty() { "off" } else { old[2].1 };
    let line = format!("listening on {url} for app {app}; it was {was} and will be again at the end (Ctrl-C)");
    if out.json {
        out.result(&json!({ "event": "listening", "url": url, "app": app, "was": old[2].1 }), "");
    } else {
        out.note(line);
    }
    let outcome = tokio::select! {
        _ = &mut stop => Ok(()),
        served = async { axum::serve(listener, router).await } => served.context("the receiver stopped"),
        () = print(received, args.count, out) => Ok(()),
    };
    app::change(admin, app, &app::settings(old)).await.inspect_err(|_| {
        eprintln!(
            "linnet: the app's webhook URL is still {url}; put it back: linnet app set webhook.url={}",
            text::shell(old[2].1)
        );
    })?;
    outcome.map(|()| Exit::Done)
}

async fn print(mut received: mpsc::Receiver<Received>, count: Option<u64>, out: Output) {
    let mut seen = 0;
    while let Some(event) = received.recv().await {
        let now = Clock::system().now().0;
        let code = event.answer["ErrorCode"].as_u64().unwrap_or(0);
        let delay_ms = u64::try_from(event.delay.as_millis()).unwrap_or(u64::MAX);
        let body: Value = serde_json::from_str(&event.body).unwrap_or_default();
        let object = json!({
            "event": "webhook", "command": event.command, "query": event.query, "body": body, "answer": event.answer,
            "delay_ms": delay_ms,
        });
        let held = if delay_ms == 0 { String::new() } else { format!(" after {}", text::span(delay_ms)) };
        let head = format!("{} {}  answered {code}{held}", text::clock(now), event.command);
        let written =
            out.line(&object, if out.quiet { head } else { format!("{head}\n{}", text::pretty(&event.body)) });
        seen += 1;
        if written.is_err() || count.is_some_and(|count| seen >= count) {
            return;
        }
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, RawQuery(query): RawQuery, body: String) -> Response {
    let query: BTreeMap<_, _> =
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    let command = query.get("CallbackCommand").cloned().unwrap_or_default();
    if command.is_empty() {
        return (StatusCode::NOT_FOUND, "this is `linnet webhooks listen`; it takes webhooks only\n").into_response();
    }
    let (delay, answer) = match &receiver.reply {
        Some(file) => answer(file, &command).await,
        None => (Duration::ZERO, fine()),
    };
    tokio::time::sleep(delay).await;
    let reply = axum::Json(answer.clone());
    // A terminal that is far behind slows the app's server down, as a real one would be.
    let _ = receiver.printed.send(Received { command, query, body, answer, delay }).await;
    reply.into_response()
}

fn fine() -> Value {
    json!({ "ActionStatus": "OK", "ErrorCode": 0, "ErrorInfo": "" })
}

/// A file that became wrong while listening does not end it: the event is let pass, and the terminal says why.
async fn answer(file: &PathBuf, command: &str) -> (Duration, Value) {
    let planned = match script(file).await {
        Ok(script) => match script.get(command).or_else(|| script.get("*")) {
            Some(how) => planned(how),
            None => Ok((Duration::ZERO, fine())),
        },
        Err(why) => Err(why),
    };
    planned.unwrap_or_else(|why| {
        eprintln!("linnet: {}: {why}; answered OK", file.display());
        (Duration::ZERO, fine())
    })
}

async fn script(file: &PathBuf) -> Result<Map<String, Value>, String> {
    let text = tokio::fs::read_to_string(file).await.map_err(|why| why.to_string())?;
    serde_json::from_str(&text).map_err(|why| why.to_string())
}

/// An answer, a delay (`"1500ms"` or milliseconds), or `[delay, answer]`.
fn planned(how: &Value) -> Result<(Duration, Value), String> {
    match how {
        Value::Object(_) => Ok((Duration::ZERO, how.clone())),
        Value::Number(ms) => Ok((Duration::from_millis(ms.as_u64().ok_or("a delay is not negative")?), fine())),
        Value::String(span) => Ok((span.parse::<Period>()?.get(), fine())),
        Value::Array(both) => match both.as_slice() {
            [delay, answer @ Value::Object(_)] => Ok((planned(delay)?.0, answer.clone())),
            _ => Err("a list is [delay, answer]".to_owned()),
        },
        Value::Null | Value::Bool(_) => Err(format!("{how} is neither an answer nor a delay")),
    }
}

fn bad_script(file: &std::path::Path, why: &str) -> Failure {
    let todo = "write {\"COMMAND\": ANSWER}, with a JSON object or a delay such as \"1500ms\" as the answer";
    Failure::usage(format!("{} is no reply file", file.display()), why, todo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_answers_delays_or_does_both() {
        let no = json!({ "ErrorCode": 1 });
        assert_eq!(planned(&no).unwrap(), (Duration::ZERO, no.clone()));
        assert_eq!(planned(&json!("1.5s")).unwrap(), (Duration::from_millis(1500), fine()));
        assert_eq!(planned(&json!(20)).unwrap(), (Duration::from_millis(20), fine()));
        assert_eq!(planned(&json!(["20ms", no])).unwrap(), (Duration::from_millis(20), no));
        for wrong in [json!(true), json!("soon"), json!(-1), json!([1]), json!(["1s", 2])] {
            assert!(planned(&wrong).is_err(), "{wrong}");
        }
    }
}
