//! A history that holds, and what is found when one thing in it is falsified.

use super::*;
use crate::faults::record::Reading;

fn entry(seq: u64, from: &str) -> Entry {
    let random = u32::try_from(seq).unwrap() * 10;
    Entry { seq, from: from.into(), random, text: format!("m{seq}"), time_ms: 1_000 + seq, tip: false }
}

fn told(conv: &Conv, entry: &Entry, writer: usize) -> Told {
    Told {
        conv: conv.clone(),
        from: entry.from.clone(),
        writer,
        no: u32::try_from(entry.seq).unwrap(),
        random: entry.random,
        text: entry.text.clone(),
        tries: 1,
        begun_ms: entry.seq * 10,
        ended_ms: entry.seq * 10 + 5,
        fate: Fate::Stored(Some(entry.seq)),
        trail: Vec::new(),
    }
}

fn pair() -> Conv {
    Conv::pair("alice", "bob")
}

fn room() -> Conv {
    Conv::Group("room".into())
}

/// Alice and bob wrote three messages each above position 4, in turn; both and a backend saw them; a live room too.
fn sound() -> History {
    let conv = pair();
    let entries: Vec<Entry> = (5..=10).map(|seq| entry(seq, if seq % 2 == 0 { "alice" } else { "bob" })).collect();
    let mut log = Log { base: 4, head: 10, ..Log::default() };
    let mut history = History::default();
    for entry in &entries {
        log.add(entry.clone());
        history.sends.push(told(&conv, entry, usize::from(entry.from == "bob")));
    }
    for user in ["alice", "bob"] {
        let shown = entries.iter().filter(|entry| entry.from != user).cloned().collect();
        let shown = BTreeMap::from([(conv.clone(), shown)]);
        history.screens.push(Screen { user: user.into(), follows: true, shown, ..Screen::default() });
    }
    let hook = |entry: &Entry| Hooked { id: format!("id{}", entry.seq), conv: pair(), entry: entry.clone() };
    history.hooks = Some(entries.iter().map(hook).collect());
    history.readings.push(Reading { by: "rest".into(), conv: conv.clone(), entries });
    history.before.insert(conv.clone(), BTreeMap::new());
    history.members.insert(conv.clone(), ["alice", "bob"].map(str::to_owned).into());
    history.logs.insert(conv, log);
    history.rooms.insert(room());
    for no in 20..23 {
        let live = entry(no, "alice");
        history.sends.push(Told { fate: Fate::Published, ..told(&room(), &live, 2) });
        history.screens[1].shown.entry(room()).or_default().push(live);
    }
    history
}

/// The laws that are found broken after `change`.
fn broken(change: impl FnOnce(&mut History)) -> Vec<Law> {
    let mut history = sound();
    change(&mut history);
    let mut laws: Vec<Law> = check(&history).into_iter().map(|violation| violation.law).collect();
    laws.sort_unstable();
    laws.dedup();
    laws
}

fn log(history: &mut History) -> &mut Log {
    history.logs.get_mut(&pair()).unwrap()
}

#[test]
fn a_sound_history_is_found_sound() {
    assert_eq!(broken(|_| {}), []);
}

#[test]
fn an_acknowledged_message_that_is_gone_is_lost() {
    // As if nobody else had noticed: nothing but the sender's record tells of it.
    let laws = broken(|history| {
        log(history).head = 9;
        log(history).entries.remove(&10);
        history.screens[1].shown.get_mut(&pair()).unwrap().retain(|entry| entry.seq != 10);
        history.readings[0].entries.pop();
        history.hooks.as_mut().unwrap().pop();
    });
    assert_eq!(laws, [Law::Lost]);
}

#[test]
fn a_position_without_content_is_a_hole() {
    assert!(broken(|history| drop(log(history).entries.remove(&7))).contains(&Law::Hole));
}

#[test]
fn an_entry_above_the_head_is_no_log() {
    assert!(broken(|history| log(history).head = 9).contains(&Law::Hole));
}

#[test]
fn a_second_content_is_found_wherever_it_was_seen() {
    let other = |seq| Entry { text: "other".into(), ..entry(seq, "alice") };
    let reused = |change: &dyn Fn(&mut History)| broken(change).contains(&Law::SeqReused);
    assert!(reused(&|h| drop(log(h).entries.insert(6, other(6)))), "in the log");
    assert!(reused(&|h| log(h).add(other(6))), "told twice by history");
    assert!(reused(&|h| h.screens[1].shown.get_mut(&pair()).unwrap()[0] = other(6)), "on a screen");
    assert!(reused(&|h| h.readings[0].entries[1] = other(6)), "by another reader");
    assert!(reused(&|h| h.sends[5].fate = Fate::Stored(Some(8))), "acknowledged twice");
    assert!(reused(&|h| drop(h.before.get_mut(&pair()).unwrap().insert(6, other(6)))), "in the run before");
    assert!(reused(&|h| h.screens[0].shown.get_mut(&pair()).unwrap().push(entry(11, "bob"))), "shown, and not stored");
}

#[test]
fn an_acknowledgement_with_another_position_is_untrue() {
    assert_eq!(broken(|history| history.sends[0].fate = Fate::Stored(Some(99))), [Law::Untrue]);
}

#[test]
fn a_retry_that_was_stored_again_is_found() {
    let laws = broken(|history| {
        let again = Entry { seq: 11, time_ms: 2_000, ..entry(10, "alice") };
        log(history).head = 11;
        log(history).add(again.clone());
        history.screens[1].shown.get_mut(&pair()).unwrap().push(again.clone());
        history.readings[0].entries.push(again);
    });
    assert!(laws.contains(&Law::Duplicated), "{laws:?}");
}

#[test]
fn a_message_shown_twice_or_out_of_order_is_found() {
    let twice = broken(|history| {
        let shown = history.screens[1].shown.get_mut(&pair()).unwrap();
        shown.push(shown[2].clone());
    });
    assert_eq!(twice, [Law::Duplicated]);
    assert_eq!(broken(|history| history.screens[1].shown.get_mut(&pair()).unwrap().swap(0, 1)), [Law::Reordered]);
}

#[test]
fn a_sender_whose_messages_changed_places_is_found() {
    let swap = |history: &mut History| {
        history.sends[1].no = 8;
        history.sends[3].no = 6;
    };
    let one_after_the_other = broken(|history| {
        swap(history);
        (history.sends[1].begun_ms, history.sends[1].ended_ms) = (1_000, 1_001);
    });
    assert_eq!(one_after_the_other, [Law::Reordered]);
    let at_once = broken(|history| {
        swap(history);
        (history.sends[1].begun_ms, history.sends[1].ended_ms) = (0, 1_000);
    });
    assert_eq!(at_once, [Law::Reordered]);
    let repeated = broken(|history| {
        swap(history);
        (history.sends[1].begun_ms, history.sends[1].ended_ms, history.sends[1].tries) = (0, 1_000, 2);
        (history.sends[3].begun_ms, history.sends[3].ended_ms) = (0, 1_000);
    });
    assert_eq!(repeated, [], "a retry of messages under way at once promises no order");
}

#[test]
fn a_message_somebody_did_not_get_is_found() {
    assert_eq!(
        broken(|history| drop(history.screens[0].shown.get_mut(&pair()).unwrap().remove(1))),
        [Law::Undelivered]
    );
    let elsewhere = broken(|history| {
        history.screens[0].shown.get_mut(&pair()).unwrap().remove(1);
        history.screens[0].follows = false;
    });
    assert_eq!(elsewhere, [], "a device that does not follow may miss some");
}

#[test]
fn what_was_refused_must_not_be_there() {
    assert_eq!(broken(|history| history.sends[2].fate = Fate::Refused(10_007)), [Law::Untrue]);
    assert_eq!(broken(|history| history.sends[2].fate = Fate::Shaped), [Law::Untrue]);
    assert_eq!(broken(|history| history.sends[2].fate = Fate::Unknown), []);
}

#[test]
fn time_that_goes_back_is_found() {
    assert_eq!(broken(|history| log(history).entries.get_mut(&8).unwrap().time_ms = 1), [Law::Untrue]);
}

#[test]
fn a_log_that_others_read_otherwise_is_found() {
    assert_eq!(broken(|history| drop(history.readings[0].entries.pop())), [Law::Hole]);
}

#[test]
fn live_rooms_show_what_was_published_once_and_in_order() {
    let screen = |history: &mut History, change: &dyn Fn(&mut Vec<Entry>)| {
        change(history.screens[1].shown.get_mut(&room()).unwrap());
    };
    assert_eq!(broken(|history| history.sends[6].fate = Fate::Shaped), [Law::Untrue]);
    assert_eq!(broken(|h| screen(h, &|shown| shown.swap(0, 1))), [Law::Reordered]);
    assert!(broken(|h| screen(h, &|shown| shown.push(shown[2].clone()))).contains(&Law::Duplicated));
    assert_eq!(broken(|h| screen(h, &|shown| drop(shown.pop()))), [], "a room may lose some");
}

#[test]
fn webhooks_come_under_one_id_each_and_in_order() {
    let hooks = |change: &dyn Fn(&mut Vec<Hooked>)| broken(|history| change(history.hooks.as_mut().unwrap()));
    assert_eq!(hooks(&|hooks| drop(hooks.remove(2))), [Law::Hooks], "one is missing");
    assert_eq!(hooks(&|hooks| hooks.push(hooks[2].clone())), [], "delivered again");
    assert_eq!(
        hooks(&|hooks| hooks.push(Hooked { id: "new".into(), ..hooks[2].clone() })),
        [Law::Hooks],
        "a second id"
    );
    assert_eq!(hooks(&|hooks| hooks.swap(1, 2)), [Law::Hooks], "out of order");
    assert_eq!(hooks(&|hooks| hooks[3].id = "id5".into()), [Law::Hooks], "an id for two");
}

#[test]
fn an_ended_client_and_counters_that_do_not_add_up_are_told() {
    assert_eq!(broken(|history| history.screens[0].ended = Some("kicked".into())), [Law::Ended]);
    assert_eq!(broken(|history| history.laws.push("arrived 3, stored 2".into())), [Law::Counters]);
}
