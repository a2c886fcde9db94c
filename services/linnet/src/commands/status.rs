//! `linnet status`: health at one glance, with the accounting laws term by term.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use linnet_runtime::{Clock, drain};
use serde_json::{Map, Value, json};

use super::admin::Admin;
use super::text;
use crate::output::{Exit, Failure, Output};
use crate::target::Common;

/// Rates are taken over this long.
const SPAN: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_secs(1);

/// Health at one glance; the accounting laws term by term.
///
/// Ends with 1 when messages are unaccounted for.
#[derive(Args, Debug)]
#[command(after_help = "Example, with `linnet dev` running:\n  linnet status")]
pub(crate) struct StatusArgs {
    /// A line every second, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

/// # Errors
/// [`Failure`] when the server cannot be reached or messages are unaccounted for.
pub(crate) async fn run(args: StatusArgs, common: &Common, out: Output) -> Result<Exit> {
    let admin = Admin::new(&common.target()?)?;
    let mut before = Sample::take(&admin).await?;
    if args.watch {
        let stop = drain::signalled();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                _ = &mut stop => return Ok(Exit::Done),
                () = tokio::time::sleep(EVERY) => {}
            }
            let now = Sample::take(&admin).await?;
            let line = format!("{} {}", text::clock(Clock::system().now().0), now.line(&before));
            if out.line(&now.object(&before), line).is_err() {
                return Ok(Exit::Done);
            }
            before = now;
        }
    }
    tokio::time::sleep(SPAN).await;
    let now = Sample::take(&admin).await?;
    if out.json {
        out.result(&now.object(&before), "");
    } else {
        out.text(now.line(&before));
        now.laws().iter().for_each(|line| out.text(line));
    }
    // What is on its way while the counters are read is not lost; what two readings miss is.
    if now.unaccounted() == 0 || before.unaccounted() == 0 {
        return Ok(Exit::Done);
    }
    let todo = "the law above that does not add up names the stage; keep the server's log and metrics";
    Err(Failure::refused("messages are unaccounted for", format!("unaccounted {}", now.unaccounted()), todo).into())
}

/// The server's counters at one moment.
struct Sample {
    at: Duration,
    status: Value,
}

impl Sample {
    async fn take(admin: &Admin) -> Result<Self> {
        let status = admin.get(&["status"], &[]).await?;
        Ok(Self { at: Duration::from_millis(Clock::system().now().0), status })
    }

    fn number(&self, name: &str) -> u64 {
        self.status[name].as_u64().unwrap_or(0)
    }

    fn term(&self, law: &str, term: &str) -> u64 {
        self.status["laws"][law][term].as_u64().unwrap_or(0)
    }

    fn unaccounted(&self) -> u64 {
        self.number("unaccounted")
    }

    /// Messages that reached an owner, of pairs and groups.
    fn owners(&self, term: &str) -> u64 {
        self.owner_laws().map(|law| self.term(law, term)).sum()
    }

    fn owner_laws(&self) -> impl Iterator<Item = &str> {
        let laws = self.status["laws"].as_object().into_iter().flatten();
        laws.map(|(name, _)| name.as_str()).filter(|name| name.starts_with("owner"))
    }

    fn per_s(&self, before: &Self, of: impl Fn(&Self) -> u64) -> u64 {
        let ms = u64::try_from(self.at.saturating_sub(before.at).as_millis()).unwrap_or(1).max(1);
        of(self).saturating_sub(of(before)) * 1000 / ms
    }

    fn object(&self, before: &Self) -> Value {
        let mut object = self.status.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.insert("in_per_s".to_owned(), json!(self.per_s(before, |s| s.owners("arrived"))));
            fields.insert("out_per_s".to_owned(), json!(self.per_s(before, |s| s.term("gateway", "written"))));
        }
        object
    }

    /// `1 node  online 84,112  in 1,204/s  out 611 k/s  shaped 0.4 %  unaccounted 0  oldest webhook 0.8 s`
    fn line(&self, before: &Self) -> String {
        let nodes = self.status["nodes"].as_array().map_or(1, Vec::len) as u64;
        let (arrived, shaped) = (self.owners("arrived"), self.owners("shaped"));
        let permille = (shaped * 1000).checked_div(arrived).unwrap_or(0);
        let webhooks = &self.status["webhooks"];
        let count = |name: &str| webhooks[name].as_u64().unwrap_or(0);
        let webhook = if count("queued") == 0 { "none".to_owned() } else { text::span(count("oldest_ms")) };
        let dead = if count("dead") == 0 { String::new() } else { format!("  failed webhooks {}", count("dead")) };
        format!(
            "{}  online {}  in {}/s  out {}/s  shaped {}.{} %  unaccounted {}  oldest webhook {webhook}{dead}",
            text::count(nodes, "node"),
            text::number(self.number("online")),
            rate(self.per_s(before, |s| s.owners("arrived"))),
            rate(self.per_s(before, |s| s.term("gateway", "written"))),
            permille / 10,
            permille % 10,
            text::number(self.unaccounted()),
        )
    }

    fn laws(&self) -> Vec<String> {
        let laws = self.status["laws"].as_object().into_iter().flatten();
        laws.filter_map(|(name, terms)| Some(law(name, terms.as_object()?))).collect()
    }
}

/// `611 k`, `1,204`.
fn rate(n: u64) -> String {
    if n >= 100_000 { format!("{} k", text::number(n / 1000)) } else { text::number(n) }
}

/// What arrived, and what became of it: `owner_c2c  arrived 12 = stored 10 + shaped 1 + refused 1`. Terms of 0 are left
/// out; what is not a law is listed. What a link has not delivered yet is on its way.
fn law(name: &str, terms: &Map<String, Value>) -> String {
    let total = terms.keys().find(|term| ["arrived", "receivers_at_arrival", "sent"].contains(&term.as_str()));
    let shown = |(term, value): (&String, &Value)| {
        let value = value.as_u64().unwrap_or(0);
        (value > 0).then(|| format!("{} {}", term.replace('_', " "), text::number(value)))
    };
    let Some(total) = total else {
        let parts: Vec<_> = terms.iter().filter_map(shown).collect();
        return format!("  {name:<12} {}", if parts.is_empty() { "0".to_owned() } else { parts.join(", ") });
    };
    let all = terms[total].as_u64().unwrap_or(0);
    let others = || terms.iter().filter(|(term, _)| *term != total);
    let sum: u64 = others().filter_map(|(_, value)| value.as_u64()).sum();
    let parts: Vec<_> = others().filter_map(shown).collect();
    let parts = if parts.is_empty() { "0".to_owned() } else { parts.join(" + ") };
    let missing = if name.starts_with("link") { "on its way" } else { "unaccounted" };
    let gap = if all == sum { String::new() } else { format!("   {missing} {}", text::number(all.abs_diff(sum))) };
    format!("  {name:<12} {} {} = {parts}{gap}", total.replace('_', " "), text::number(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, arrived: u64, written: u64) -> Sample {
        let status = json!({
            "online": 84112, "unaccounted": 0,
            "webhooks": { "queued": 2, "oldest_ms": 800, "dead": 0 },
            "laws": {
                "owner_c2c": { "arrived": arrived, "stored": arrived, "shaped": 0 },
                "owner_group": { "arrived": 1000, "stored": 990, "shaped": 10 },
                "gateway": { "receivers_at_arrival": written, "written": written },
                "link": { "sent": 4, "resent": 0 },
            },
        });
        Sample { at: Duration::from_millis(at_ms), status }
    }

    #[test]
    fn one_line_has_rates_and_what_is_wrong() {
        let (before, now) = (sample(1000, 0, 0), sample(1500, 602, 305_500));
        assert_eq!(
            now.line(&before),
            "1 node  online 84,112  in 1,204/s  out 611 k/s  shaped 0.6 %  unaccounted 0  oldest webhook 800 ms"
        );
    }

    #[test]
    fn a_law_is_printed_term_by_term_and_says_when_it_does_not_hold() {
        let shown = |value: Value| law("gateway", value.as_object().unwrap());
        assert_eq!(
            shown(json!({ "receivers_at_arrival": 12, "written": 11, "dropped": 1, "pending": 0 })),
            "  gateway      receivers at arrival 12 = dropped 1 + written 11"
        );
        assert!(shown(json!({ "receivers_at_arrival": 12, "written": 9 })).ends_with("= written 9   unaccounted 3"));
        assert_eq!(shown(json!({ "opened": 4, "closed": 0 })), "  gateway      opened 4");
        let link = json!({ "sent": 4, "received": 3, "reported_missing": 0 });
        assert_eq!(law("link_batches", link.as_object().unwrap()), "  link_batches sent 4 = received 3   on its way 1");
    }
}
