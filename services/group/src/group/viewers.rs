//! Who watches a live room: exact while it is small, by counts above.
//!
//! Up to [`NAMED`] viewers every gateway names its own, and a user on two of them is one. Above, the sum of the gateways'
//! counts is taken: a user on two gateways is counted twice then.

use std::collections::{HashMap, HashSet};

/// Viewers of a room up to which they are known by name.
pub(crate) const NAMED: u32 = 10_000;
/// Below this they are asked for again.
const NAMED_AGAIN: u32 = 9_000;

/// Viewers by gateway.
#[derive(Debug, Default)]
pub(crate) struct Viewers {
    gateways: HashMap<String, Here>,
    /// On how many gateways each named viewer is.
    named: HashMap<String, u32>,
}

#[derive(Debug)]
struct Here {
    incarnation: u64,
    local: u32,
    /// `None`: only the count is known.
    names: Option<HashSet<String>>,
}

/// What one gateway tells since it told last.
#[derive(Debug, Default)]
pub(crate) struct Told<'a> {
    pub(crate) joined: &'a [String],
    pub(crate) left: &'a [String],
    /// `joined` and `left` are all that came and went.
    pub(crate) whole: bool,
    /// Everybody there, if it was asked for.
    pub(crate) present: Option<&'a [String]>,
    pub(crate) local: u32,
}

/// What that means for the room.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Users who were nowhere in the room before, and who are nowhere now.
    pub(crate) came: Vec<String>,
    pub(crate) went: Vec<String>,
    /// The gateway is to name everybody.
    pub(crate) name_all: bool,
}

impl Viewers {
    /// A gateway has viewers (again).
    pub(crate) fn register(&mut self, gateway: &str, incarnation: u64, local: u32, names: Vec<String>) {
        self.remove(gateway);
        let here = Here { incarnation, local, names: None };
        self.gateways.insert(gateway.to_owned(), here);
        if names.len() == local as usize {
            self.set_names(gateway, names);
        }
        self.bound();
    }

    /// A gateway has none any more.
    pub(crate) fn deregister(&mut self, gateway: &str, incarnation: u64) {
        if self.gateways.get(gateway).is_some_and(|here| here.incarnation <= incarnation) {
            self.remove(gateway);
        }
    }

    /// Forgets the gateways that do not live.
    pub(crate) fn retain(&mut self, lives: impl Fn(&str, u64) -> bool) {
        let dead: Vec<String> = self
            .gateways
            .iter()
            .filter(|(name, here)| !lives(name, here.incarnation))
            .map(|(name, _)| name.clone())
            .collect();
        dead.iter().for_each(|gateway| self.remove(gateway));
    }

    /// Takes over what a gateway tells; `None` when it is not registered.
    pub(crate) fn tell(&mut self, gateway: &str, incarnation: u64, told: &Told<'_>) -> Option<Moved> {
        let here = self.gateways.get_mut(gateway).filter(|here| here.incarnation == incarnation)?;
        here.local = told.local;
        let names = here.names.take();
        let mut moved = Moved::default();
        match (names, told.present) {
            (names, Some(present)) => {
                self.forget_names(names);
                self.set_names(gateway, present.to_vec());
                (moved.came, moved.went) = (told.joined.to_vec(), told.left.to_vec());
            }
            (Some(mut names), None) if told.whole => {
                let there: HashSet<&String> = told.joined.iter().collect();
                for user in told.joined {
                    // Who came before the registration is named by it, and told of here.
                    let first = match names.insert(user.clone()) {
                        true => self.enter(user),
                        false => self.named.get(user) == Some(&1),
                    };
                    if first {
                        moved.came.push(user.clone());
                    }
                }
                for user in told.left {
                    // Who left and came back in between is told in both, and is there.
                    if there.contains(user) {
                        continue;
                    }
                    let last = match names.remove(user) {
                        true => self.leave(user),
                        false => !self.named.contains_key(user),
                    };
                    if last {
                        moved.went.push(user.clone());
                    }
                }
                if names.len() == told.local as usize {
                    self.gateways.get_mut(gateway)?.names = Some(names);
                } else {
                    self.forget_names(Some(names));
                }
            }
            (names, None) => {
                self.forget_names(names);
                (moved.came, moved.went) = (told.joined.to_vec(), told.left.to_vec());
            }
        }
        self.bound();
        let unnamed = self.gateways.get(gateway).is_some_and(|here| here.names.is_none());
        moved.name_all = unnamed && self.sum() <= NAMED_AGAIN;
        Some(moved)
    }

    /// Users who watch.
    pub(crate) fn online(&self) -> u32 {
        let unnamed: u32 = self.gateways.values().filter(|here| here.names.is_none()).map(|here| here.local).sum();
        u32::try_from(self.named.len()).unwrap_or(u32::MAX).saturating_add(unnamed)
    }

    /// Whether any gateway is registered.
    pub(crate) fn is_empty(&self) -> bool {
        self.gateways.is_empty()
    }

    fn sum(&self) -> u32 {
        self.gateways.values().map(|here| here.local).fold(0, u32::saturating_add)
    }

    /// Above the limit nobody is known by name.
    fn bound(&mut self) {
        if self.sum() > NAMED {
            self.gateways.values_mut().for_each(|here| here.names = None);
            self.named = HashMap::new();
        }
    }

    fn set_names(&mut self, gateway: &str, names: Vec<String>) {
        let names: HashSet<String> = names.into_iter().collect();
        for user in &names {
            self.enter(user);
        }
        if let Some(here) = self.gateways.get_mut(gateway) {
            here.names = Some(names);
        }
    }

    fn remove(&mut self, gateway: &str) {
        if let Some(here) = self.gateways.remove(gateway) {
            self.forget_names(here.names);
        }
    }

    fn forget_names(&mut self, names: Option<HashSet<String>>) {
        for user in names.into_iter().flatten() {
            self.leave(&user);
        }
    }

    /// One gateway more; true when it is the first.
    fn enter(&mut self, user: &str) -> bool {
        let on = self.named.entry(user.to_owned()).or_default();
        *on += 1;
        *on == 1
    }

    /// One gateway fewer; true when it was the last.
    fn leave(&mut self, user: &str) -> bool {
        let Some(on) = self.named.get_mut(user) else { return false };
        *on -= 1;
        if *on == 0 {
            self.named.remove(user);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn told<'a>(joined: &'a [String], left: &'a [String], local: u32) -> Told<'a> {
        Told { joined, left, whole: true, present: None, local }
    }

    #[test]
    fn a_user_on_two_gateways_is_one() {
        let mut viewers = Viewers::default();
        viewers.register("g1", 1, 2, names(&["a", "b"]));
        viewers.register("g2", 1, 1, names(&["b"]));
        assert_eq!(viewers.online(), 2);
        let moved = viewers.tell("g2", 1, &told(&names(&["a", "c"]), &[], 3)).unwrap();
        assert_eq!((moved.came, viewers.online()), (names(&["c"]), 3));
        let moved = viewers.tell("g1", 1, &told(&[], &names(&["a", "b"]), 0)).unwrap();
        assert_eq!((moved.went, viewers.online()), (Vec::new(), 3));
        viewers.retain(|gateway, _| gateway != "g2");
        assert_eq!(viewers.online(), 0);
        assert_eq!(viewers.tell("g2", 1, &told(&[], &[], 0)), None);
    }

    #[test]
    fn a_gateway_whose_names_do_not_add_up_names_everybody_again() {
        let mut viewers = Viewers::default();
        viewers.register("g1", 1, 1, names(&["a"]));
        let moved = viewers.tell("g1", 1, &told(&names(&["c"]), &[], 3)).unwrap();
        assert_eq!((moved.name_all, viewers.online()), (true, 3), "counted, not named");
        let present = names(&["a", "b", "c"]);
        let all = Told { present: Some(&present), local: 3, ..Told::default() };
        let moved = viewers.tell("g1", 1, &all).unwrap();
        assert_eq!((moved.name_all, viewers.online()), (false, 3));
        viewers.register("g2", 1, 1, names(&["b"]));
        assert_eq!(viewers.online(), 3);
    }

    #[test]
    fn above_the_limit_the_counts_are_added() {
        let mut viewers = Viewers::default();
        let many: Vec<String> = (0..6_000).map(|n| format!("u{n}")).collect();
        viewers.register("g1", 1, 6_000, many.clone());
        viewers.register("g2", 1, 3_000, many[..3_000].to_vec());
        assert_eq!(viewers.online(), 6_000);
        viewers.tell("g2", 1, &Told { local: 5_000, ..Told::default() }).unwrap();
        assert_eq!(viewers.online(), 11_000);
        let moved = viewers.tell("g1", 1, &Told { local: 2_000, ..Told::default() }).unwrap();
        assert_eq!((moved.name_all, viewers.online()), (true, 7_000));
        let moved = viewers.tell("g2", 2, &Told::default());
        assert_eq!(moved, None, "another life of the gateway");
    }
}
