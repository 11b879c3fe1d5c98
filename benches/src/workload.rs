//! The data and its timelines: timelines by Zipf, bodies that resemble English, groups of members.
//!
//! Everything comes from a seed, and everything is generated before a clock starts. The generator
//! is written here, in ten lines, so that figures of different years use the same data whatever a
//! crate's next version does.

/// Conversations, and likewise users.
pub const TIMELINES: u32 = 100_000;

/// The number of a user's sync timeline: they follow those of the conversations.
pub fn sync_timeline(user: u32) -> u32 {
    TIMELINES + user
}

/// The size of a body, in bytes.
pub const BODY_BYTES: usize = 200;

/// Groups that a fan-out writes to.
pub const GROUPS: u32 = 192;

/// No member of a group of one class is in a group of another: engines whose callers number the
/// entries can then be written to by up to `CLASSES` threads without a lock around every timeline.
pub const CLASSES: u32 = 16;

/// YCSB's exponent: the most active of 100 k timelines gets 8 % of the appends, a third of them get
/// almost none.
const EXPONENT: f64 = 0.99;

/// Distinct bodies: 3.2 MB of text, so that a compressor's window does not find the same body
/// twice.
const BODY_POOL: usize = 16_384;

/// Pseudo-random numbers (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence for this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u32
    }

    /// A number from 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Samples from `0..count`, a few of them often and most of them rarely.
#[derive(Debug)]
pub struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    /// Over `count` things.
    pub fn new(count: u32) -> Zipf {
        let mut sum = 0.0;
        let cumulative = (1..=count)
            .map(|rank| {
                sum += f64::from(rank).powf(-EXPONENT);
                sum
            })
            .collect();
        Zipf { cumulative }
    }

    /// A rank, 0 being the most frequent.
    pub fn rank(&self, random: &mut Random) -> u32 {
        let total = self.cumulative.last().copied().unwrap_or(0.0);
        let point = random.unit() * total;
        let rank = self.cumulative.partition_point(|&sum| sum < point);
        rank.min(self.cumulative.len().saturating_sub(1)) as u32
    }
}

/// A timeline by Zipf. Frequent ones are spread over the range, as ids of real conversations are:
/// the factor shares no divisor with `TIMELINES`, so that ranks map to ids one to one.
pub fn timeline(zipf: &Zipf, random: &mut Random) -> u32 {
    (u64::from(zipf.rank(random)) * 48_271 % u64::from(TIMELINES)) as u32
}

/// One append: to a conversation's timeline.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    /// The conversation, below `TIMELINES`.
    pub timeline: u32,
    /// The body.
    pub body: &'a [u8],
}

/// One message to a group.
#[derive(Clone, Copy, Debug)]
pub struct FanOut<'a> {
    /// The conversation's timeline.
    pub conversation: u32,
    /// The members' sync timelines.
    pub members: &'a [u32],
    /// The body.
    pub body: &'a [u8],
}

/// A pool of bodies.
#[derive(Debug)]
pub struct Bodies {
    bytes: Vec<u8>,
}

impl Bodies {
    /// Makes the pool.
    pub fn new(seed: u64) -> Bodies {
        let mut random = Random::new(seed);
        let words: Vec<&str> = WORDS.split_ascii_whitespace().collect();
        let frequent = Zipf::new(words.len() as u32);
        let mut bytes = Vec::with_capacity(BODY_POOL * BODY_BYTES);
        while bytes.len() < BODY_POOL * BODY_BYTES {
            // One word in ten is a number or a name: without them, text from a word list compresses
            // better than text does.
            if random.below(10) == 0 {
                bytes.extend_from_slice(format!("{:x}", random.below(1 << 20)).as_bytes());
            } else {
                bytes.extend_from_slice(words[frequent.rank(&mut random) as usize].as_bytes());
            }
            bytes.push(b' ');
        }
        bytes.truncate(BODY_POOL * BODY_BYTES);
        Bodies { bytes }
    }

    /// Some body.
    pub fn pick(&self, random: &mut Random) -> &[u8] {
        let at = random.below(BODY_POOL as u32) as usize * BODY_BYTES;
        &self.bytes[at..at + BODY_BYTES]
    }

    /// This many bytes of the pool.
    pub fn piece(&self, random: &mut Random, bytes: usize) -> &[u8] {
        let bytes = bytes.min(self.bytes.len());
        let at = random.below((self.bytes.len() - bytes + 1) as u32) as usize;
        &self.bytes[at..at + bytes]
    }
}

/// `count` appends of writer `writer` of `writers`, which have disjoint timelines:
/// `timeline % writers == writer`.
pub fn appends(bodies: &Bodies, count: usize, writer: u32, writers: u32) -> Vec<Append<'_>> {
    let mut random = Random::new(0x5EED + u64::from(writer));
    let zipf = Zipf::new(TIMELINES);
    (0..count)
        .map(|_| {
            let picked = timeline(&zipf, &mut random);
            let own = picked - picked % writers + writer;
            let own = if own < TIMELINES { own } else { own - writers };
            Append { timeline: own, body: bodies.pick(&mut random) }
        })
        .collect()
}

/// The members of each of [`GROUPS`] groups.
pub fn groups(members_each: usize) -> Vec<Vec<u32>> {
    many_groups(GROUPS, members_each)
}

/// The members of each of `count` groups. Group `g` draws its members from the users of class
/// `g % CLASSES`.
pub fn many_groups(count: u32, members_each: usize) -> Vec<Vec<u32>> {
    let mut random = Random::new(0x6209);
    (0..count)
        .map(|group| {
            let drawn = distinct(&mut random, TIMELINES / CLASSES, members_each);
            drawn.iter().map(|user| user * CLASSES + group % CLASSES).collect()
        })
        .collect()
}

/// The members of each of `count` groups of 50 to 500, all of them among the first `users` users.
pub fn mixed_groups(count: u32, users: u32) -> Vec<Vec<u32>> {
    let mut random = Random::new(0x3117);
    (0..count)
        .map(|_| {
            let members = 50 + random.below(451) as usize;
            distinct(&mut random, users, members)
        })
        .collect()
}

/// `count` distinct numbers below `bound`, or all of them if there are fewer, in no order.
pub fn distinct(random: &mut Random, bound: u32, count: usize) -> Vec<u32> {
    let mut pool: Vec<u32> = (0..bound).collect();
    // The first `count` places of a Fisher–Yates shuffle.
    for place in 0..count.min(pool.len()) {
        let other = place + random.below((pool.len() - place) as u32) as usize;
        pool.swap(place, other);
    }
    pool.truncate(count);
    pool
}

/// `count` messages of writer `writer` of `writers` (a divisor of `CLASSES`), to groups of its
/// classes only: to each once, in their order, if there are enough of them.
pub fn fan_outs<'a>(
    bodies: &'a Bodies,
    groups: &'a [Vec<u32>],
    count: usize,
    writer: u32,
    writers: u32,
) -> Vec<FanOut<'a>> {
    let mut random = Random::new(0xFA9 + u64::from(writer));
    let own = groups.len() as u32 / writers;
    (0..count as u32)
        .map(|message| {
            let group = if count as u32 <= own { message } else { random.below(own) };
            let conversation = group * writers + writer;
            FanOut {
                conversation,
                members: &groups[conversation as usize],
                body: bodies.pick(&mut random),
            }
        })
        .collect()
}

const WORDS: &str = "\
    the to I and a you of it in is that for on have be this not me with are my was but so we do \
    at just can if what out up your they all no like know get one time when there from good think \
    see will now how or want go about going some then here been too back would had her him could \
    them really today well who why day work did make please than more after need come great \
    tomorrow our right over still morning way because thing say even much only look night where \
    last take tell sure week maybe people thanks home call meeting should again before down other \
    never things always something better let long train office dinner everyone lunch question \
    sorry weekend later idea house message already school photo ready agree around happy friend \
    street window paper coffee evening answer ticket problem picture garden station minutes \
    together afternoon birthday weather somebody nothing believe remember different important \
    understand yesterday interesting probably everything conversation";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_same_seed_gives_the_same_appends() {
        let (one, two) = (Bodies::new(1), Bodies::new(1));
        let first: Vec<_> =
            appends(&one, 500, 0, 1).iter().map(|a| (a.timeline, a.body.to_vec())).collect();
        let second: Vec<_> =
            appends(&two, 500, 0, 1).iter().map(|a| (a.timeline, a.body.to_vec())).collect();
        assert_eq!(first, second);
    }

    #[test]
    fn ids_spread_one_to_one_over_the_ranks() {
        let ids: HashSet<u64> =
            (0..u64::from(TIMELINES)).map(|rank| rank * 48_271 % u64::from(TIMELINES)).collect();
        assert_eq!(ids.len(), TIMELINES as usize);
    }

    #[test]
    fn the_most_frequent_of_a_zipf_has_its_share() {
        let zipf = Zipf::new(TIMELINES);
        let mut random = Random::new(7);
        let hits = (0..100_000).filter(|_| zipf.rank(&mut random) == 0).count();
        assert!((7_000..9_000).contains(&hits), "{hits} of 100000 went to the first rank");
    }

    #[test]
    fn writers_have_disjoint_timelines() {
        let bodies = Bodies::new(1);
        for writer in 0..64 {
            let mine = appends(&bodies, 200, writer, 64);
            assert!(
                mine.iter()
                    .all(|append| append.timeline % 64 == writer && append.timeline < TIMELINES)
            );
        }
    }

    #[test]
    fn groups_have_distinct_members_of_their_class() {
        for (group, members) in groups(500).iter().enumerate() {
            assert_eq!(members.iter().collect::<HashSet<_>>().len(), 500);
            assert!(
                members
                    .iter()
                    .all(|&user| user < TIMELINES && user % CLASSES == group as u32 % CLASSES)
            );
        }
    }

    #[test]
    fn mixed_groups_have_50_to_500_distinct_members() {
        for members in mixed_groups(40, 600) {
            assert!((50..=500).contains(&members.len()));
            assert_eq!(members.iter().collect::<HashSet<_>>().len(), members.len());
            assert!(members.iter().all(|&user| user < 600));
        }
    }

    #[test]
    fn as_many_groups_as_messages_are_used_once_each() {
        let bodies = Bodies::new(1);
        let groups = many_groups(480, 3);
        let used = fan_outs(&bodies, &groups, 30, 5, 16);
        let used: HashSet<u32> = used.iter().map(|work| work.conversation).collect();
        assert_eq!(used.len(), 30);
    }

    #[test]
    fn fan_outs_of_a_writer_stay_in_its_classes() {
        let bodies = Bodies::new(1);
        let groups = groups(10);
        for writer in 0..16 {
            assert!(
                fan_outs(&bodies, &groups, 50, writer, 16)
                    .iter()
                    .all(|work| work.conversation % 16 == writer)
            );
        }
    }
}
