//! What a database may do now. Pure.

use whimbrel_shared::protocol::poll::Order;

/// The order for one database: its own plan, else its app's, else everything that is published.
pub(crate) fn order(own: Option<Order>, app: Option<Order>, latest: u32) -> Order {
    own.or(app).unwrap_or(Order::ApplyUpTo { version: latest })
}

/// Highest version that `order` lets a database apply.
pub(crate) fn allowed(order: Order, latest: u32) -> u32 {
    match order {
        Order::ApplyUpTo { version } => version.min(latest),
        Order::RevertDownTo { .. } => 0,
    }
}

/// The version that `order` names.
pub(crate) fn named(order: Order) -> u32 {
    match order {
        Order::ApplyUpTo { version } | Order::RevertDownTo { version } => version,
    }
}

/// How many versions `order` allows that are not in place: `version` and all below it are, and those in `ahead`.
pub(crate) fn pending(order: Order, latest: u32, version: u32, ahead: &[u32]) -> u32 {
    let allowed = allowed(order, latest);
    let ahead = ahead.iter().filter(|v| **v <= allowed && **v > version);
    allowed.saturating_sub(version).saturating_sub(u32::try_from(ahead.count()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: fn(u32) -> Order = |version| Order::ApplyUpTo { version };
    const DOWN: fn(u32) -> Order = |version| Order::RevertDownTo { version };

    #[test]
    fn a_databases_own_plan_beats_its_apps_and_no_plan_means_everything() {
        assert_eq!(order(None, None, 7), UP(7));
        assert_eq!(order(None, Some(UP(3)), 7), UP(3));
        assert_eq!(order(Some(DOWN(1)), Some(UP(3)), 7), DOWN(1));
    }

    #[test]
    fn pending_is_what_the_plan_allows_and_the_database_lacks() {
        let check = |order, latest, version, ahead: &[u32], expected| {
            assert_eq!(pending(order, latest, version, ahead), expected, "{order:?} {latest} {version} {ahead:?}");
        };
        check(UP(5), 5, 0, &[], 5);
        check(UP(5), 5, 5, &[], 0);
        check(UP(3), 5, 1, &[], 2);
        check(UP(9), 5, 1, &[], 4);
        check(UP(5), 5, 0, &[2, 4], 3);
        check(UP(3), 5, 0, &[2, 4], 2);
        check(UP(3), 5, 4, &[], 0);
        check(DOWN(1), 5, 3, &[], 0);
    }
}
