//! What time it is, for judging signatures. Pure. A clock that went back never makes anything refuse: a device whose
//! battery is empty wakes up in 1970 and still gets its migrations (DESIGN 6).

/// When this binary was built, in milliseconds since 1970.
pub fn built_ms() -> i64 {
    env!("WHIMBREL_BUILT_SECONDS").parse::<i64>().map_or(0, |seconds| seconds.saturating_mul(1000))
}

/// So far a clock may be set back without anybody looking: time servers correct by less.
const TOLERATED_MS: i64 = 5 * 60 * 1000;

/// The time, as far as it can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970; never before anything that was accepted, nor before the binary was built.
    pub ms: i64,
    /// By how many milliseconds the system's clock is behind that, where it is more than a correction.
    pub behind_ms: Option<i64>,
}

/// The latest of the system's clock, of what was accepted last, and of the build.
pub fn now(system_ms: i64, accepted_ms: Option<i64>, built_ms: i64) -> Now {
    let ms = system_ms.max(built_ms).max(accepted_ms.unwrap_or(i64::MIN));
    let behind = ms.saturating_sub(system_ms);
    Now { ms, behind_ms: (behind > TOLERATED_MS).then_some(behind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_never_before_the_build_nor_before_what_was_accepted() {
        let hour = 3_600_000;
        let check = |system, accepted, built, ms, behind_ms| assert_eq!(now(system, accepted, built), Now { ms, behind_ms });
        check(100 * hour, None, 50 * hour, 100 * hour, None);
        check(0, None, 50 * hour, 50 * hour, Some(50 * hour));
        check(0, Some(80 * hour), 50 * hour, 80 * hour, Some(80 * hour));
        check(80 * hour - 1000, Some(80 * hour), 50 * hour, 80 * hour, None);
        check(90 * hour, Some(80 * hour), 50 * hour, 90 * hour, None);
    }

    #[test]
    fn the_binary_knows_when_it_was_built() {
        assert!(built_ms() > 1_700_000_000_000, "{}", built_ms());
    }
}
