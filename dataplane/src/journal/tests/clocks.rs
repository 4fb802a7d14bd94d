//! Kills, boots and steps of the wall clock at random times. A model of what was earned judges each start.

use super::SECOND;
use super::machine::{Entries, Machine, Run};

const HOUR: u64 = 3_600 * SECOND;

/// The longest time between two turns of the writer here.
const TURN: u64 = 30 * SECOND;

/// The longest time without a record.
const SILENCE: u64 = 60 * SECOND;

/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What was earned. Expiries are in the machine's time, which no clock changes.
#[derive(Default)]
struct Model {
    earned: Entries,
    /// The same at the last turn of the writer, the time of that turn, the wall clock then, and the boot.
    stored: Entries,
    turn: u64,
    offset: i64,
    boot: [u8; 16],
}

impl Model {
    fn note_turn(&mut self, machine: &Machine) {
        self.earned.retain(|_, until| *until > machine.time);
        self.stored = self.earned.clone();
        (self.turn, self.offset, self.boot) = (machine.time, machine.offset, machine.mark().boot);
    }

    /// Compares the entries of a start with those that may count, and continues with them.
    fn check_start(&mut self, machine: &Machine, run: &Run, what: &str) {
        let zero = machine.time - machine.now().as_nanos();
        let found: Entries = run.entries(machine).into_iter().map(|(name, until)| (name, until + zero)).collect();
        let is_same_boot = self.boot == machine.mark().boot;
        // Steps that were noticed at the last turn are in the file.
        let step = if is_same_boot { 0 } else { machine.offset - self.offset };
        let (off, back) = (machine.time - self.turn, step.min(0).unsigned_abs());
        let shifted = self.stored.iter().map(|(name, until)| (name.clone(), until.saturating_add_signed(-step)));
        let expected: Entries = shifted.filter(|(_, until)| *until > machine.time).collect();
        if run.report.clock_was_set_back {
            assert!(back > off, "{what}: set back by {back} ns, {off} ns after the last turn");
            assert_eq!(found, Entries::new(), "{what}");
        } else {
            assert_eq!(found, expected, "{what}: a step of {step} ns");
            assert!(back <= off + SILENCE + TURN, "{what}: set back by {back} ns, {off} ns after the last turn");
        }
        for (name, until) in &found {
            // Set back by less than the machine was off, nobody can know.
            assert!(*until <= self.stored[name] + back.min(off + SILENCE + TURN), "{what}: {name} is extended");
        }
        self.earned = found;
    }
}

/// One change of the entries or of the wall clock. Returns whether an operator waits for the writer.
fn act(run: &mut Run, machine: &mut Machine, model: &mut Model, dice: &mut Dice) -> bool {
    let until = machine.time + dice.below(3 * HOUR) + SECOND;
    let by_clock = machine.now().as_nanos() + (until - machine.time);
    let host = dice.below(8) as u8;
    let (address, prefix) = (format!("192.0.2.{host}"), format!("10.9.{host}.0/24"));
    match dice.below(8) {
        // A grant that is only refreshed has an event for each sixteenth of its time.
        0..=2 if !run.entries(machine).contains_key(&address) => {
            run.add(machine, host, by_clock);
            model.earned.insert(address, until);
        }
        3 => {
            run.remove(machine, host);
            model.earned.remove(&address);
            return true;
        }
        4 => {
            run.set_prefix(machine, host, Some(by_clock));
            model.earned.insert(prefix, until);
        }
        5 => {
            run.set_prefix(machine, host, None);
            model.earned.remove(&prefix);
            return true;
        }
        6 if dice.percent(20) => {
            run.flush(machine);
            model.earned.retain(|name, _| name.contains('/'));
            return true;
        }
        7 => machine.offset += if dice.percent(50) { HOUR as i64 } else { -(HOUR as i64) },
        _ => {}
    }
    false
}

/// Some runs of one machine.
fn life(seed: u64) {
    let mut dice = Dice(seed);
    let mut machine = Machine::new();
    let mut model = Model::default();
    machine.start().turn(&machine);
    model.note_turn(&machine);
    for number in 0..12 {
        let mut run = machine.start();
        model.check_start(&machine, &run, &format!("life {seed}, start {number}"));
        // Some runs end before their first turn.
        for _ in 0..dice.below(12) {
            let is_awaited = act(&mut run, &mut machine, &mut model, &mut dice);
            machine.time += dice.below(TURN);
            if is_awaited || dice.percent(70) {
                run.turn(&machine);
                model.note_turn(&machine);
            }
        }
        // A time without changes.
        for _ in 0..if dice.percent(30) { dice.below(400) } else { 0 } {
            machine.time += TURN;
            run.turn(&machine);
            model.note_turn(&machine);
        }
        drop(run);
        if dice.percent(50) {
            machine.boot(dice.below(2 * HOUR));
            if dice.percent(50) {
                machine.offset += dice.below(4 * HOUR) as i64 - 2 * HOUR as i64;
            }
        } else {
            machine.time += dice.below(600 * SECOND);
        }
    }
}

#[test]
fn kills_boots_and_steps_of_the_clock_lose_nothing_that_was_earned_and_extend_nothing() {
    let soak = std::env::var("KNOCKPLANE_SOAK").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    (0..100 * soak).for_each(life);
}
