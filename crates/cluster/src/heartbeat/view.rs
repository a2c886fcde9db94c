//! What one node concludes from what it hears: pure, told the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use linnet_proto::cluster::{Beat, Kept, Standing};
use linnet_types::{NodeId, UnixMillis};

use super::HeartbeatConfig;
use crate::members::Node;
use crate::service::Service;

/// A node that missed this many beats counts as silent for the freeze rule, long before it is dead.
const SILENT_BEATS: u32 = 3;
/// So many of a node's own beats in a row do not come back to it: it is the node that is deaf. Under heavy loss fewer
/// would happen by chance.
const DEAF_BEATS: u32 = 4;

/// How long the last life of a node that is gone is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Most nodes told of their last lives in one beat.
const ASKERS: usize = 64;
/// Longest node id taken.
const NODE_BYTES: usize = 128;

/// What a beat turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A node of ours, alive; `answer` when it asks who is there.
    Alive { answer: bool },
    /// The node's own beat came back.
    Echo,
    /// A node that is about to start wants to know its last life; `answer` when it is known here.
    Asks { answer: bool },
    /// Of another cluster.
    Foreign,
    /// Of an earlier life of a node that was replaced. Once, it was late; again and again, two processes have one id.
    Replaced,
    /// Another process has this node's id, and is newer.
    Superseded,
}

/// Everything known, and when it was heard.
#[derive(Debug)]
pub(super) struct View {
    rules: HeartbeatConfig,
    cluster: String,
    me: Node,
    standing: Standing,
    /// Services this node or others were on the ring of because no node was settled.
    counted: BTreeMap<NodeId, BTreeSet<Service>>,
    known: BTreeMap<NodeId, Known>,
    /// Lives that ended by their own word, so that a beat that comes late does not raise them; until when.
    gone: BTreeMap<NodeId, (u64, Duration)>,
    /// The last life of every node, and when it was heard, for those that start again with a clock that was set back.
    lives: BTreeMap<NodeId, (u64, Duration)>,
    /// Who asked for his last life since our last beat.
    askers: BTreeSet<NodeId>,
    up: bool,
    unechoed: u32,
    /// The last tick found that silence means nothing.
    deaf: bool,
    frozen_until: Option<Duration>,
    /// Others keep this node's place from before its restart.
    kept: bool,
}

#[derive(Debug)]
struct Known {
    node: Node,
    standing: Standing,
    heard: Duration,
    /// It came back so soon that it keeps its place until then.
    kept_until: Option<Duration>,
    /// How far its wall clock is ahead of ours.
    ahead_ms: i64,
}

impl View {
    pub(super) fn new(rules: HeartbeatConfig, cluster: &str, me: Node) -> Self {
        Self {
            rules,
            cluster: cluster.to_owned(),
            me,
            standing: Standing::Starting,
            counted: BTreeMap::new(),
            known: BTreeMap::new(),
            gone: BTreeMap::new(),
            lives: BTreeMap::new(),
            askers: BTreeSet::new(),
            up: false,
            unechoed: 0,
            deaf: true,
            frozen_until: None,
            kept: false,
        }
    }

    /// What this node says of itself. It settles early when others keep its place, and when it was on every ring of its
    /// services already because nobody was settled there: it would only be moved away and back.
    pub(super) fn stand(&mut self, standing: Standing) {
        self.standing = standing;
        if standing == Standing::Young && (self.kept || self.grew_up()) {
            self.standing = Standing::Settled;
        }
    }

    fn grew_up(&self) -> bool {
        let counted = self.counted.get(&self.me.id);
        let everywhere = |services: &BTreeSet<_>| self.me.services.iter().all(|service| services.contains(service));
        counted.is_some_and(everywhere) && self.me.services.iter().any(|service| self.has_settled(*service))
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// The beat to send now.
    pub(super) fn beat(&mut self, now: Duration, wall: UnixMillis, hello: bool) -> Beat {
        let asked = std::mem::take(&mut self.askers);
        let life = |id: &NodeId| self.lives.get(id).map(|(life, _)| Kept { node: id.to_string(), incarnation: *life });
        let lives = asked.iter().filter_map(life).collect();
        let kept = self.known.values().filter(|known| known.is_kept(now));
        Beat {
            cluster: self.cluster.clone(),
            node: self.me.id.to_string(),
            incarnation: self.me.incarnation,
            services: self.me.services.iter().map(|service| service.name().to_owned()).collect(),
            address: self.me.address.clone(),
            capabilities: self.me.capabilities.clone(),
            standing: self.standing.into(),
            hello,
            kept: kept.map(|k| Kept { node: k.node.id.to_string(), incarnation: k.node.incarnation }).collect(),
            wall_ms: wall.0,
            asks_life: false,
            lives,
        }
    }

    /// A beat of ours left.
    pub(super) fn sent(&mut self) {
        self.unechoed = self.unechoed.saturating_add(1);
    }

    /// The connection to the bus came or went.
    pub(super) fn link(&mut self, up: bool) {
        self.up = up;
        self.unechoed = 0;
    }

    pub(super) fn heard(&mut self, now: Duration, wall: UnixMillis, beat: Beat) -> Heard {
        if beat.cluster != self.cluster {
            return Heard::Foreign;
        }
        if beat.node.is_empty() || beat.node.len() > NODE_BYTES {
            return Heard::Foreign;
        }
        let id = NodeId::trusted(beat.node.as_str());
        if beat.asks_life {
            let answer = self.lives.contains_key(&id) && self.askers.len() < ASKERS;
            if answer {
                self.askers.insert(id);
            }
            return Heard::Asks { answer };
        }
        if id == self.me.id && beat.incarnation <= self.me.incarnation {
            if beat.incarnation < self.me.incarnation {
                return Heard::Replaced;
            }
            self.unechoed = 0;
            return Heard::Echo;
        }
        let known = self.known.get(&id);
        let ended = self.gone.get(&id).map(|(incarnation, _)| *incarnation + 1);
        if beat.standing() == Standing::Gone && ended == Some(beat.incarnation + 1) {
            // A farewell is said more than once.
            return Heard::Alive { answer: false };
        }
        if beat.incarnation < known.map_or(0, |known| known.node.incarnation).max(ended.unwrap_or(0)) {
            return Heard::Replaced;
        }
        let superseded = id == self.me.id;
        let answer = beat.hello;
        let life = self.lives.entry(id.clone()).or_insert((0, now));
        *life = (life.0.max(beat.incarnation), now);
        self.learn(now, wall, id, beat);
        if superseded { Heard::Superseded } else { Heard::Alive { answer } }
    }

    fn learn(&mut self, now: Duration, wall: UnixMillis, id: NodeId, beat: Beat) {
        let standing = beat.standing();
        if standing == Standing::Gone {
            self.forget(&id);
            self.gone.insert(id, (beat.incarnation, now + self.rules.dead_after.get()));
            return;
        }
        let ours = |kept: &Kept| kept.node == self.me.id.as_str() && kept.incarnation == self.me.incarnation;
        self.kept |= beat.kept.iter().any(ours);
        let before = self.known.remove(&id);
        let restarted = before.as_ref().filter(|before| before.node.incarnation < beat.incarnation);
        // Back before anybody would have taken it for dead: moving what it owned away and back helps nobody.
        let kept_until = match (&before, restarted) {
            (_, Some(before)) => {
                (before.is_settled(now) || self.counts(&id)).then(|| before.heard + self.rules.dead_after.get())
            }
            (Some(same), None) => same.kept_until,
            (None, None) => None,
        };
        if matches!(standing, Standing::Leaving | Standing::Starting) || restarted.is_some() {
            self.counted.remove(&id);
        }
        let node = Node {
            services: beat.services.iter().filter_map(|name| Service::parse(name)).collect(),
            attracts: Vec::new(),
            incarnation: beat.incarnation,
            address: beat.address,
            capabilities: beat.capabilities,
            id: id.clone(),
        };
        // A build that does not tell its time counts as right.
        let theirs = if beat.wall_ms == 0 { wall.0 } else { beat.wall_ms };
        let ahead_ms = theirs.cast_signed().saturating_sub(wall.0.cast_signed());
        self.known.insert(id, Known { node, standing, heard: now, kept_until, ahead_ms });
    }

    /// How far most clocks are ahead of ours, ours among them; of two in the middle the slower one.
    pub(super) fn ahead_ms(&self) -> i64 {
        let mut all: Vec<i64> = self.known.values().map(|known| known.ahead_ms).chain([0]).collect();
        let middle = (all.len() - 1) / 2;
        *all.select_nth_unstable(middle).1
    }

    fn forget(&mut self, id: &NodeId) {
        self.known.remove(id);
        self.counted.remove(id);
    }

    fn counts(&self, id: &NodeId) -> bool {
        self.counted.get(id).is_some_and(|services| !services.is_empty())
    }

    /// This watcher heard nothing for a while by its own fault: everybody's silence counts from now.
    pub(super) fn missed(&mut self, now: Duration) {
        self.known.values_mut().for_each(|known| known.heard = now);
    }

    /// Passes judgement; gives the nodes that are dead.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<NodeId> {
        self.gone.retain(|_, (_, until)| now < *until);
        self.lives.retain(|_, (_, heard)| now.saturating_sub(*heard) < REMEMBERED);
        let deaf = !self.up || self.unechoed >= DEAF_BEATS;
        if std::mem::replace(&mut self.deaf, deaf) && !deaf {
            self.missed(now);
            self.frozen_until = None;
        }
        if deaf {
            return Vec::new();
        }
        let silent = self.silent(now);
        match self.frozen_until {
            Some(_) if !self.is_most(silent.len()) => {
                // They come back one by one.
                self.frozen_until = None;
                self.missed(now);
            }
            Some(until) if now < until => return Vec::new(),
            Some(_) => {}
            None if self.fell_silent_together(&silent) => {
                // For that long since they fell silent.
                self.frozen_until = silent.last().map(|last| *last + self.rules.freeze.get());
                return Vec::new();
            }
            None => {}
        }
        let is_dead = |known: &&Known| now.saturating_sub(known.heard) > self.rules.dead_after.get();
        let dead: Vec<_> = self.known.values().filter(is_dead).map(|known| known.node.id.clone()).collect();
        dead.iter().for_each(|id| self.forget(id));
        if !self.is_most(self.silent(now).len()) {
            self.frozen_until = None;
        }
        dead
    }

    /// When each silent node was last heard, sorted. Who leaves may fall silent at any time.
    fn silent(&self, now: Duration) -> Vec<Duration> {
        let limit = self.rules.period.get() * SILENT_BEATS + self.rules.period.get() / 2;
        let stays = |known: &&Known| known.standing != Standing::Leaving;
        let mut heard: Vec<_> = self.known.values().filter(stays).map(|known| known.heard).collect();
        heard.retain(|heard| now.saturating_sub(*heard) > limit);
        heard.sort_unstable();
        heard
    }

    /// Over half of the nodes, this one among them.
    fn is_most(&self, count: usize) -> bool {
        let stays = self.known.values().filter(|known| known.standing != Standing::Leaving).count();
        count * 2 > stays + 1
    }

    /// Most nodes were last heard within one period (and the one before, for a beat may be lost on the way): that is
    /// usually the bus.
    fn fell_silent_together(&self, silent: &[Duration]) -> bool {
        let most = (1..=silent.len()).find(|count| self.is_most(*count));
        most.is_some_and(|most| silent.windows(most).any(|run| run[most - 1] - run[0] <= self.rules.period.get() * 2))
    }

    /// Whether deaths are held back.
    pub(super) fn frozen(&self) -> bool {
        self.deaf || self.frozen_until.is_some()
    }

    /// Whether a newer process has this node's id.
    pub(super) fn is_superseded(&self) -> bool {
        self.known.contains_key(&self.me.id)
    }

    fn has_settled(&self, service: Service) -> bool {
        let me = self.standing == Standing::Settled && self.me.services.contains(&service);
        me || self.known.values().any(|k| k.standing == Standing::Settled && k.node.services.contains(&service))
    }

    /// The live nodes and what each attracts.
    pub(super) fn nodes(&mut self, now: Duration) -> Vec<Node> {
        let mut all: Vec<_> = self.known.values().map(|known| (known.seen(now), known.node.clone())).collect();
        // A newer process with this node's id stands for it.
        if !self.is_superseded() {
            all.push((self.standing, self.me.clone()));
        }
        for (_, node) in &mut all {
            node.attracts.clear();
        }
        for service in Service::ALL {
            self.draw(service, &mut all);
        }
        for (standing, node) in &mut all {
            if *standing == Standing::Starting {
                node.services.clear();
            }
        }
        all.into_iter().map(|(_, node)| node).collect()
    }

    /// The ring of one service: the settled nodes, and young ones that were on it when none was settled; else all young
    /// ones; else even who leaves, for an empty ring helps nobody.
    fn draw(&mut self, service: Service, all: &mut [(Standing, Node)]) {
        let stands = |all: &[(Standing, Node)], wanted| {
            all.iter().any(|(standing, node)| *standing == wanted && node.services.contains(&service))
        };
        let settled = stands(all, Standing::Settled);
        let young = stands(all, Standing::Young);
        for (standing, node) in all.iter_mut().filter(|(_, node)| node.services.contains(&service)) {
            let counted = self.counted.get(&node.id).is_some_and(|services| services.contains(&service));
            let drawn = match standing {
                Standing::Settled => true,
                Standing::Young => !settled || counted,
                Standing::Leaving => !settled && !young,
                Standing::Starting | Standing::Gone | Standing::Unspecified => false,
            };
            if drawn {
                node.attracts.push(service);
                if *standing == Standing::Young {
                    self.counted.entry(node.id.clone()).or_default().insert(service);
                }
            }
        }
    }
}

impl Known {
    fn is_kept(&self, now: Duration) -> bool {
        let back = matches!(self.standing, Standing::Starting | Standing::Young);
        back && self.kept_until.is_some_and(|until| now < until)
    }

    fn is_settled(&self, now: Duration) -> bool {
        self.seen(now) == Standing::Settled
    }

    /// Its standing to this watcher.
    fn seen(&self, now: Duration) -> Standing {
        if self.is_kept(now) { Standing::Settled } else { self.standing }
    }
}
