use proptest::prelude::*;

use super::*;

fn message(seq: u64, from: &str) -> Message {
    Message { seq, from: from.into(), body: Bytes::from_static(b"[1]"), ..Message::default() }
}

fn viewer(user: &str) -> Viewer {
    Viewer { user: Some(user.into()), ..Viewer::default() }
}

#[test]
fn each_side_of_a_pair_sees_what_is_meant_for_it() {
    let mut kept = message(1, "alice");
    kept.set_visibility(Visibility::Sender);
    let mut given = message(2, "alice");
    given.set_visibility(Visibility::Receiver);
    let (alice, bob) = (viewer("alice"), viewer("bob"));
    assert_eq!((alice.hidden(&kept), bob.hidden(&kept)), (None, Some(Why::Hidden)));
    assert_eq!((alice.hidden(&given), bob.hidden(&given)), (Some(Why::Hidden), None));
    let admin = Viewer::default();
    assert_eq!((admin.hidden(&kept), admin.hidden(&given)), (None, None));
}

#[test]
fn a_targeted_message_is_seen_by_those_named_and_its_sender() {
    let mut targeted = message(1, "alice");
    targeted.set_visibility(Visibility::Listed);
    targeted.visible_to = vec!["bob".into()];
    assert_eq!(viewer("bob").hidden(&targeted), None);
    assert_eq!(viewer("alice").hidden(&targeted), None);
    assert_eq!(viewer("carol").hidden(&targeted), Some(Why::Hidden));
}

#[test]
fn recalled_content_is_kept_from_viewers() {
    let recalled = Message { revoked: true, cloud_custom_data: "x".into(), ..message(1, "alice") };
    let shown = Viewer::show(recalled);
    assert_eq!((&shown.body[..], shown.cloud_custom_data.as_str()), (&b"[]"[..], ""));
}

#[test]
fn descending_page_covers_from_its_start_to_the_row_it_stopped_at() {
    let mut page = Page::new(10, false, 2, 1000);
    for seq in [10, 7, 6, 5] {
        let row = message(seq, "alice");
        let hidden = (seq == 7).then_some(Why::Deleted);
        if !page.take(row, hidden) {
            break;
        }
    }
    assert_eq!(page.messages.iter().map(|m| m.seq).collect::<Vec<_>>(), [10, 6]);
    let runs: Vec<_> = page.placeholders.iter().map(|p| (p.from_seq, p.to_seq, p.why.as_str())).collect();
    assert_eq!(runs, [(8, 9, "expired"), (7, 7, "deleted")]);
    assert_eq!(page.covered(), (6, 10));
}

#[test]
fn one_message_larger_than_the_page_is_still_delivered() {
    let mut page = Page::new(1, true, 10, 2);
    assert!(page.take(message(1, "alice"), None));
    assert!(!page.take(message(2, "alice"), None));
    assert_eq!(page.covered(), (1, 1));
}

proptest! {
    /// Messages and placeholders cover the range exactly once, whatever is missing or hidden, in pages of any size.
    #[test]
    fn pages_cover_every_position_once(
        present in proptest::collection::btree_map(1..60_u64, 0..4_u8, 0..40),
        ascending: bool,
        limit in 1..7_usize,
    ) {
        let bob = viewer("bob");
        let (low, high) = (1_u64, 60_u64);
        let mut seen = vec![0_u32; 61];
        let (mut from, mut to) = (low, high);
        let mut rounds = 0;
        while from <= to {
            rounds += 1;
            prop_assert!(rounds < 200, "closing gaps does not end");
            let start = if ascending { from } else { to };
            let mut page = Page::new(start, ascending, limit, 10_000);
            let mut rows: Vec<_> = present.range(from..=to).collect();
            if !ascending { rows.reverse(); }
            let mut full = false;
            for (seq, kind) in rows {
                let mut row = message(*seq, "alice");
                if *kind == 0 { row.set_visibility(Visibility::Sender); }
                let hidden = bob.hidden(&row);
                if !page.take(row, hidden) { full = true; break; }
            }
            if !full { page.finish(if ascending { to } else { from }, Why::Expired); }
            for m in &page.messages { seen[m.seq as usize] += 1; }
            for p in &page.placeholders { for seq in p.from_seq..=p.to_seq { seen[seq as usize] += 1; } }
            let (a, b) = page.covered();
            prop_assert!(a <= b);
            if ascending { prop_assert_eq!(a, from); from = b + 1; } else { prop_assert_eq!(b, to); to = a - 1; }
        }
        prop_assert!(seen[1..].iter().all(|n| *n == 1), "{:?}", seen);
    }
}
