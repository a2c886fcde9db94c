use proptest::prelude::*;

use super::*;

const KINDS: [GroupType; 5] =
    [GroupType::Work, GroupType::Public, GroupType::Meeting, GroupType::AVChatRoom, GroupType::Community];
const RANKS: [Rank; 5] = [Rank::Outside, Rank::Member, Rank::Admin, Rank::Owner, Rank::App];

fn kind() -> impl Strategy<Value = GroupType> {
    prop::sample::select(KINDS.to_vec())
}
fn rank() -> impl Strategy<Value = Rank> {
    prop::sample::select(RANKS.to_vec())
}
fn act() -> impl Strategy<Value = Act> {
    let plain = vec![
        Act::EditFace,
        Act::EditProfile,
        Act::EditApplyOption,
        Act::EditInviteOption,
        Act::Appoint,
        Act::MuteAll,
        Act::Disband,
        Act::Transfer,
        Act::Invite,
        Act::HandleApplication,
        Act::RecallOthers,
        Act::RecallOwn,
        Act::EditMember,
        Act::ListMembers,
        Act::ReadMembers,
        Act::Quit,
        Act::Target,
        Act::MentionAll,
        Act::Notify,
    ];
    prop_oneof![
        prop::sample::select(plain),
        rank().prop_map(Act::Kick),
        rank().prop_map(Act::Mute),
        rank().prop_map(Act::Ban),
    ]
}

proptest! {
    #[test]
    fn a_higher_rank_may_whatever_a_lower_one_may(kind in kind(), act in act(), low in rank(), high in rank()) {
        prop_assume!(low <= high);
        if allow(kind, low, act).is_ok() {
            prop_assert!(allow(kind, high, act).is_ok(), "{kind:?} {act:?} {low:?} {high:?}");
        }
    }

    #[test]
    fn nobody_below_the_app_acts_on_an_equal_or_higher_rank(kind in kind(), who in rank(), victim in rank()) {
        prop_assume!(who < Rank::App && victim >= who && victim > Rank::Outside);
        for act in [Act::Kick(victim), Act::Mute(victim), Act::Ban(victim)] {
            // In Work only the owner acts at all, and nobody is above him.
            if kind == GroupType::Work && who == Rank::Owner { continue }
            prop_assert!(allow(kind, who, act).is_err(), "{kind:?} {who:?} {act:?}");
        }
    }

    #[test]
    fn outsiders_change_nothing(kind in kind(), act in act()) {
        let reads = matches!(act, Act::ListMembers | Act::ReadMembers) || (act == Act::Quit && kind.is_live());
        prop_assert_eq!(allow(kind, Rank::Outside, act).is_ok() && !reads, false);
    }

    #[test]
    fn what_the_app_may_not_do_nobody_may(kind in kind(), act in act(), rank in rank()) {
        if allow(kind, Rank::App, act).is_err() {
            prop_assert!(allow(kind, rank, act).is_err());
        }
    }
}

fn code_of(kind: GroupType, rank: Rank, act: Act) -> u32 {
    allow(kind, rank, act).err().map_or(0, |refusal| refusal.code)
}

#[test]
fn documented_rows_of_the_permission_table() {
    use GroupType::*;
    // spec/rest-groups.md §1.2, one line each.
    assert_eq!(code_of(Work, Rank::Member, Act::EditFace), 0);
    assert_eq!(code_of(Public, Rank::Member, Act::EditFace), 10007);
    assert_eq!(code_of(Meeting, Rank::Admin, Act::EditFace), 0);
    assert_eq!(code_of(AVChatRoom, Rank::Admin, Act::EditFace), 10007);
    assert_eq!(code_of(Work, Rank::Owner, Act::Appoint), 10007);
    assert_eq!(code_of(Public, Rank::Admin, Act::Appoint), 10007);
    assert_eq!(code_of(Public, Rank::Admin, Act::Kick(Rank::Member)), 0);
    assert_eq!(code_of(Public, Rank::Admin, Act::Kick(Rank::Admin)), 10007);
    assert_eq!(code_of(AVChatRoom, Rank::App, Act::Kick(Rank::Member)), 10004);
    assert_eq!(code_of(Work, Rank::App, Act::Mute(Rank::Member)), 10007);
    assert_eq!(code_of(Work, Rank::Owner, Act::Disband), 10007);
    assert_eq!(code_of(Work, Rank::App, Act::Disband), 0);
    assert_eq!(code_of(AVChatRoom, Rank::App, Act::Transfer), 10007);
    assert_eq!(code_of(AVChatRoom, Rank::App, Act::Invite), 10007);
    assert_eq!(code_of(AVChatRoom, Rank::App, Act::RecallOthers), 10007);
    assert_eq!(code_of(Community, Rank::App, Act::Ban(Rank::Member)), 10007);
    assert_eq!(code_of(Public, Rank::Owner, Act::Ban(Rank::Admin)), 0);
    assert_eq!(code_of(Public, Rank::Owner, Act::Notify), 10007);
}

#[test]
fn entry_follows_options_only_where_the_kind_has_them() {
    for option in [ApplyJoinOption::FreeAccess, ApplyJoinOption::NeedPermission, ApplyJoinOption::DisableApply] {
        assert_eq!(on_apply(GroupType::Work, option), Entry::Refused);
        assert_eq!(on_apply(GroupType::AVChatRoom, option), Entry::AtOnce);
        assert_eq!(on_apply(GroupType::Community, option), Entry::AtOnce);
    }
    assert_eq!(on_apply(GroupType::Public, ApplyJoinOption::NeedPermission), Entry::Ask);
    assert_eq!(on_apply(GroupType::Public, ApplyJoinOption::DisableApply), Entry::Refused);
    assert_eq!(on_invite(GroupType::Public, InviteJoinOption::DisableInvite, Rank::Owner), Entry::Refused);
    assert_eq!(on_invite(GroupType::Public, InviteJoinOption::DisableInvite, Rank::App), Entry::AtOnce);
    assert_eq!(on_invite(GroupType::Public, InviteJoinOption::NeedPermission, Rank::Member), Entry::Ask);
    assert_eq!(on_invite(GroupType::Public, InviteJoinOption::NeedPermission, Rank::Admin), Entry::AtOnce);
    assert_eq!(on_invite(GroupType::AVChatRoom, InviteJoinOption::FreeAccess, Rank::App), Entry::Refused);
}

#[test]
fn stored_tips_are_those_of_the_tip_table() {
    use GroupType::*;
    assert_eq!(tip_fate(Meeting, TipFamily::Members), TipFate::Off);
    assert_eq!(tip_fate(Meeting, TipFamily::Face), TipFate::Stored);
    assert_eq!(tip_fate(AVChatRoom, TipFamily::Members), TipFate::Sent);
    assert_eq!(tip_fate(AVChatRoom, TipFamily::Standing), TipFate::Off);
    for kind in KINDS {
        assert_eq!(tip_fate(kind, TipFamily::Options), TipFate::Off);
        // A live room stores nothing.
        for family in [TipFamily::Members, TipFamily::Face, TipFamily::Standing] {
            assert!(!(kind.is_live() && tip_fate(kind, family) == TipFate::Stored));
        }
    }
}
