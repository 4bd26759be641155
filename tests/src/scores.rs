//! What a bench prints: figures beside their targets.

/// Figures beside their targets.
#[derive(Debug, Default)]
pub struct Scores {
    /// Targets that were missed.
    pub missed: u32,
}

impl Scores {
    /// A figure that may not be larger than its target.
    pub fn at_most(&mut self, what: &str, figure: f64, limit: f64, unit: &str) {
        let met = figure <= limit;
        self.missed += u32::from(!met);
        println!("  {} {what:<64} {figure:>9.2} {unit:<5} target ≤ {limit} {unit}", if met { "ok  " } else { "MISS" });
    }

    /// A figure without a target.
    pub fn note(&self, what: &str, figure: impl std::fmt::Display) {
        println!("       {what:<64} {figure:>9}");
    }

    /// A figure that may not be smaller than its target.
    pub fn at_least(&mut self, what: &str, figure: f64, limit: f64, unit: &str) {
        let met = figure >= limit;
        self.missed += u32::from(!met);
        println!("  {} {what:<64} {figure:>9.2} {unit:<5} target ≥ {limit} {unit}", if met { "ok  " } else { "MISS" });
    }

    /// The sum; with `--check` a missed target ends the process with 1.
    pub fn end(&self, check: bool) {
        println!();
        match self.missed {
            0 => println!("every target is met"),
            missed => println!("{missed} target(s) missed"),
        }
        if check && self.missed > 0 {
            std::process::exit(1);
        }
    }
}
