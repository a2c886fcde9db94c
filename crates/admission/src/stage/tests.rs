use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::timeout;

use super::*;

/// Answers by sender: a delay and a reply.
#[derive(Default)]
struct Script {
    answers: HashMap<String, (Duration, callback::BeforeReply)>,
    asked: AtomicU32,
}

#[async_trait]
impl Ask for Script {
    async fn before(&self, event: callback::Event) -> Result<callback::BeforeReply, Refusal> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (delay, reply) = self.answers.get(&event.key).cloned().unwrap_or_default();
        tokio::time::sleep(delay).await;
        Ok(reply)
    }
}

fn admission(script: Arc<Script>) -> Admission {
    let metrics = Metrics::new();
    Admission::new("test", script, Clock::simulated(linnet_types::UnixMillis(0)), &Tasks::new(&metrics), &metrics)
}

fn admit(from: &str, random: u32, text: &str) -> Admit {
    let message = Message { from: from.into(), random, body: text.to_owned().into(), ..Message::default() };
    Admit {
        token: Token {
            conv: ConvId(1),
            from: UserId::trusted(from),
            msg_seq: None,
            random,
            hash: content_hash(text.as_bytes(), ""),
        },
        window: Duration::from_secs(120),
        message,
        before: Some(callback::Event { key: from.into(), ..callback::Event::default() }),
        family: Family::Group,
        max_bytes: 100,
        block_on_failure: false,
        flight: Flight::default(),
    }
}

/// An actor that stores what it is handed, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Message>>>);

impl Log {
    fn take(&self) -> impl FnOnce(Message) -> std::future::Ready<Done> + Send + use<> {
        let log = self.clone();
        move |message| {
            let mut log = log.0.lock();
            log.push(message);
            std::future::ready(Ok(SendReply { seq: log.len() as u64, ..SendReply::default() }))
        }
    }
    fn bodies(&self) -> Vec<String> {
        self.0.lock().iter().map(|m| String::from_utf8_lossy(&m.body).into_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_gets_the_first_reply_and_one_event() {
    let script = Arc::new(Script::default());
    let (stage, log) = (admission(Arc::clone(&script)), Log::default());
    let first = stage.admit(admit("a", 1, "x"), log.take()).await.expect("sent");
    let again = stage.admit(admit("a", 1, "x"), log.take()).await.expect("repeated");
    assert_eq!((first.seq, first.duplicate, again.seq, again.duplicate), (1, false, 1, true));
    assert_eq!(script.asked.load(Ordering::Relaxed), 1);
    // A library with one constant random: other texts are other messages.
    stage.admit(admit("a", 1, "y"), log.take()).await.expect("sent");
    assert_eq!(log.bodies(), ["x", "y"]);
    tokio::time::advance(Duration::from_secs(121)).await;
    assert!(!stage.admit(admit("a", 1, "x"), log.take()).await.expect("a new message").duplicate);
}

#[tokio::test(start_paused = true)]
async fn a_retry_joins_what_is_pending_even_when_the_first_caller_is_gone() {
    let mut script = Script::default();
    script.answers.insert("a".into(), (Duration::from_secs(1), callback::BeforeReply::default()));
    let (stage, log) = (admission(Arc::new(script)), Log::default());
    assert!(timeout(Duration::from_millis(100), stage.admit(admit("a", 1, "x"), log.take())).await.is_err());
    let reply = stage.admit(admit("a", 1, "x"), log.take()).await.expect("joined");
    assert!(reply.duplicate);
    assert_eq!(log.bodies(), ["x"]);
    assert_eq!(stage.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_webhook_delays_its_sender_only_and_keeps_his_order() {
    let mut script = Script::default();
    script.answers.insert("slow".into(), (Duration::from_millis(1500), callback::BeforeReply::default()));
    let (stage, log) = (admission(Arc::new(script)), Log::default());
    let send = |from: &'static str, random, text: &'static str| {
        let (stage, log) = (stage.clone(), log.clone());
        async move { stage.admit(admit(from, random, text), log.take()).await }
    };
    let (slow1, slow2, fast) = tokio::join!(send("slow", 1, "s1"), send("slow", 2, "s2"), send("fast", 3, "f"));
    assert!(slow1.is_ok() && slow2.is_ok() && fast.is_ok());
    assert_eq!(log.bodies(), ["f", "s1", "s2"]);
}

#[tokio::test(start_paused = true)]
async fn decisions() {
    let reply = |decision, body: &str| callback::BeforeReply {
        decision,
        msg_body: body.to_owned().into(),
        info: "why".into(),
        ..callback::BeforeReply::default()
    };
    let good = r#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":"**"}}]"#;
    let mut script = Script::default();
    for (who, decision, body) in [
        ("refuse", 1, ""),
        ("drop", 2, ""),
        ("own", 10_150, ""),
        ("odd", 77, ""),
        ("rewrite", 0, good),
        ("junk", 0, "{}"),
    ] {
        script.answers.insert(who.into(), (Duration::ZERO, reply(decision, body)));
    }
    let failed = callback::BeforeReply { failed_block: true, ..callback::BeforeReply::default() };
    script.answers.insert("failed".into(), (Duration::ZERO, failed));
    let (stage, log) = (admission(Arc::new(script)), Log::default());
    let refused = async |who: &str| stage.admit(admit(who, 1, "x"), log.take()).await.expect_err("refused").code;
    assert_eq!(refused("refuse").await, code::GROUP_VETO);
    assert_eq!(refused("odd").await, code::GROUP_VETO);
    assert_eq!(refused("own").await, 10_150);
    assert_eq!(refused("failed").await, code::CALLBACK_FAILED);
    let dropped = stage.admit(admit("drop", 1, "x"), log.take()).await.expect("told OK");
    assert_eq!((dropped.outcome(), dropped.seq), (Outcome::Dropped, 0));
    assert!(log.bodies().is_empty());
    stage.admit(admit("rewrite", 1, "x"), log.take()).await.expect("sent");
    stage
        .admit(admit("junk", 1, "x"), log.take())
        .await
        .expect("a bad rewrite is a failed webhook, and the policy is pass");
    assert_eq!(log.bodies(), [good, "x"]);
    let mut strict = admit("junk", 2, "x");
    strict.block_on_failure = true;
    assert_eq!(stage.admit(strict, log.take()).await.expect_err("blocked").code, code::CALLBACK_FAILED);
}

#[tokio::test(start_paused = true)]
async fn one_sender_has_a_bound() {
    let mut script = Script::default();
    script.answers.insert("a".into(), (Duration::from_secs(1), callback::BeforeReply::default()));
    let (stage, log) = (admission(Arc::new(script)), Log::default());
    let sends = (0..300).map(|random| stage.admit(admit("a", random, "x"), log.take()));
    let outcomes = futures::future::join_all(sends).await;
    let refused = outcomes.iter().filter(|o| o.as_ref().is_err_and(|r| r.code == code::BUSY)).count();
    assert_eq!((refused, log.bodies().len()), (300 - PENDING_PER_SENDER, PENDING_PER_SENDER));
}

#[tokio::test(start_paused = true)]
async fn messages_are_admitted_in_the_order_they_came_however_long_each_was_looked_at() {
    let (stage, log) = (admission(Arc::new(Script::default())), Log::default());
    let sends: Vec<_> = (0..20u32)
        .map(|n| {
            let place = stage.arrive(SdkAppId(1), "C2C:b", "a");
            let (stage, log) = (stage.clone(), log.clone());
            async move {
                // The later it came, the quicker it was looked at.
                tokio::time::sleep(Duration::from_millis(u64::from(100 - n))).await;
                if n % 3 == 2 {
                    drop(place); // Refused: must not let the next one pass those before.
                    return;
                }
                let sent = stage.admit_at(place, admit("a", n + 1, &n.to_string()), log.take()).await;
                sent.expect("sent");
            }
        })
        .collect();
    futures::future::join_all(sends).await;
    let expected: Vec<String> = (0..20).filter(|n| n % 3 != 2).map(|n| n.to_string()).collect();
    assert_eq!(log.bodies(), expected);
    assert_eq!(stage.inner.arrivals.lines(), 0, "a line nobody stands in is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_does_not_let_the_next_pass() {
    let (stage, log) = (admission(Arc::new(Script::default())), Log::default());
    let first = stage.arrive(SdkAppId(1), "C2C:b", "a");
    let second = stage.arrive(SdkAppId(1), "C2C:b", "a");
    let third = stage.arrive(SdkAppId(1), "C2C:b", "a");
    let gone = timeout(Duration::from_millis(5), stage.admit_at(second, admit("a", 2, "2"), log.take())).await;
    assert!(gone.is_err(), "the first is not admitted yet");
    let mut last = Box::pin(stage.admit_at(third, admit("a", 3, "3"), log.take()));
    assert!(timeout(Duration::from_millis(5), &mut last).await.is_err(), "still waits for the first");
    stage.admit_at(first, admit("a", 1, "1"), log.take()).await.expect("sent");
    last.await.expect("sent");
    assert_eq!(log.bodies(), ["1", "3"]);
}
