//! The equations that hold at any moment, whatever was retried, raced or killed: I1 to I11 of the inventory.
//!
//! For tests, and for an operator in doubt. Reads everything, in one transaction that sees one state.
//!
//! I11 counts what one key has done. Keys are kept for 72 hours: whoever uses one anew after that is named here without being wrong.
//!
//! I8 (a transfer keeps the total) has nothing to check yet: there are no transfers. I10 (N one-unit Reserves on S units: min(N, S)
//! succeed) is about calls, not rows; what it leaves in the tables is checked as I5.

use souk_db::{Error, Tx, sql};

/// Rows in which an equation does not hold; so many are named at most.
const NAMED_MAX: u32 = 20;

/// An equation that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `"I2"`
    pub invariant: &'static str,
    /// What it says.
    pub rule: &'static str,
    /// Where it does not hold.
    pub subject: String,
}

/// A rule, and a statement that names every subject that breaks it.
struct Equation {
    invariant: &'static str,
    rule: &'static str,
    broken: &'static str,
}

/// Every equation that does not hold; none, if all is well.
pub async fn check(tx: &mut Tx) -> Result<Vec<Violation>, Error> {
    let mut violations = Vec::new();
    for Equation { invariant, rule, broken } in EQUATIONS {
        let subjects: Vec<(String,)> = sql(format!("{broken} LIMIT {NAMED_MAX}")).fetch_all(tx).await?;
        violations.extend(subjects.into_iter().map(|(subject,)| Violation { invariant, rule, subject }));
    }
    Ok(violations)
}

const EQUATIONS: &[Equation] = &[
    Equation {
        invariant: "I1",
        rule: "no bucket is negative",
        broken: "SELECT sku || '@' || location FROM stock
                 WHERE on_hand < 0 OR held < 0 OR allocated < 0 OR safety < 0 OR incoming < 0",
    },
    Equation {
        invariant: "I2",
        rule: "held is the sum of what reservations hold",
        broken: "SELECT k.sku || '@' || k.location || ': ' || COALESCE(s.held, 0) || ' of ' || COALESCE(l.held, 0)
                 FROM (SELECT sku, location FROM stock UNION SELECT sku, location FROM reservation_lines) k
                 LEFT JOIN stock s ON s.sku = k.sku AND s.location = k.location
                 LEFT JOIN (SELECT sku, location, CAST(SUM(held) AS BIGINT) AS held
                            FROM reservation_lines GROUP BY sku, location) l ON l.sku = k.sku AND l.location = k.location
                 WHERE COALESCE(s.held, 0) <> COALESCE(l.held, 0)",
    },
    Equation {
        invariant: "I2",
        rule: "only a held reservation holds, and its lines run out with it",
        broken: "SELECT l.sku || '@' || l.location || ' of a reservation in state ' || r.state
                 FROM reservation_lines l JOIN reservations r ON r.id = l.reservation_id
                 WHERE (l.held > 0 AND r.state <> 'HELD') OR l.expires_at <> r.expires_at",
    },
    Equation {
        invariant: "I2",
        rule: "each line has its reservation",
        broken: "SELECT l.sku || '@' || l.location
                 FROM reservation_lines l LEFT JOIN reservations r ON r.id = l.reservation_id WHERE r.id IS NULL",
    },
    Equation {
        invariant: "I2",
        rule: "each reservation has lines",
        broken: "SELECT r.caller || ': ' || r.state
                 FROM reservations r LEFT JOIN reservation_lines l ON l.reservation_id = r.id WHERE l.sku IS NULL",
    },
    Equation {
        invariant: "I3",
        rule: "allocated is the sum of what reservations have committed",
        broken: "SELECT k.sku || '@' || k.location || ': ' || COALESCE(s.allocated, 0) || ' of ' || COALESCE(l.committed, 0)
                 FROM (SELECT sku, location FROM stock UNION SELECT sku, location FROM reservation_lines) k
                 LEFT JOIN stock s ON s.sku = k.sku AND s.location = k.location
                 LEFT JOIN (SELECT sku, location, CAST(SUM(committed) AS BIGINT) AS committed
                            FROM reservation_lines GROUP BY sku, location) l ON l.sku = k.sku AND l.location = k.location
                 WHERE COALESCE(s.allocated, 0) <> COALESCE(l.committed, 0)",
    },
    Equation {
        invariant: "I3",
        rule: "only a committed reservation has committed",
        broken: "SELECT l.sku || '@' || l.location || ' of a reservation in state ' || r.state
                 FROM reservation_lines l JOIN reservations r ON r.id = l.reservation_id
                 WHERE l.committed > 0 AND r.state <> 'COMMITTED'",
    },
    Equation {
        invariant: "I4",
        rule: "no more is promised than is on hand",
        broken: "SELECT sku || '@' || location FROM stock WHERE held + allocated > on_hand",
    },
    Equation {
        invariant: "I5",
        rule: "after a Reserve something was still available, or nothing, but never less",
        broken: "SELECT sku || '@' || location || ' at ' || seq FROM (
                     SELECT sku, location, seq, operation,
                         SUM(on_hand_delta - safety_delta - held_delta - allocated_delta)
                             OVER (PARTITION BY sku, location ORDER BY seq) AS available
                     FROM movements) AS ledger
                 WHERE operation = 'RESERVE' AND available < 0",
    },
    Equation {
        invariant: "I6",
        rule: "every bucket is the sum of its movements",
        broken: "SELECT k.sku || '@' || k.location
                 FROM (SELECT sku, location FROM stock UNION SELECT sku, location FROM movements) k
                 LEFT JOIN stock s ON s.sku = k.sku AND s.location = k.location
                 LEFT JOIN (SELECT sku, location, SUM(on_hand_delta) AS on_hand, SUM(held_delta) AS held,
                                SUM(allocated_delta) AS allocated, SUM(safety_delta) AS safety, SUM(incoming_delta) AS incoming
                            FROM movements GROUP BY sku, location) m ON m.sku = k.sku AND m.location = k.location
                 WHERE COALESCE(s.on_hand, 0) <> COALESCE(m.on_hand, 0) OR COALESCE(s.held, 0) <> COALESCE(m.held, 0)
                     OR COALESCE(s.allocated, 0) <> COALESCE(m.allocated, 0) OR COALESCE(s.safety, 0) <> COALESCE(m.safety, 0)
                     OR COALESCE(s.incoming, 0) <> COALESCE(m.incoming, 0)",
    },
    Equation {
        invariant: "I7",
        rule: "movements are numbered without gaps, and the version is the last number",
        broken: "SELECT k.sku || '@' || k.location
                 FROM (SELECT sku, location FROM stock UNION SELECT sku, location FROM movements) k
                 LEFT JOIN stock s ON s.sku = k.sku AND s.location = k.location
                 LEFT JOIN (SELECT sku, location, COUNT(*) AS rows_count, MIN(seq) AS first, MAX(seq) AS last,
                                MAX(CASE WHEN on_hand_delta <> 0 THEN seq ELSE 0 END) AS last_on_hand
                            FROM movements GROUP BY sku, location) m ON m.sku = k.sku AND m.location = k.location
                 WHERE COALESCE(m.first, 1) <> 1 OR COALESCE(m.rows_count, 0) <> COALESCE(m.last, 0)
                     OR COALESCE(s.version, 0) <> COALESCE(m.last, 0)
                     OR COALESCE(s.on_hand_version, 0) <> COALESCE(m.last_on_hand, 0)",
    },
    Equation {
        invariant: "I9",
        rule: "every unit of a line is held, committed, released or expired",
        broken: "SELECT sku || '@' || location FROM reservation_lines WHERE requested <> held + committed + released + expired",
    },
    Equation {
        invariant: "I11",
        rule: "a key has moved one reservation, and each record of it once",
        broken: "SELECT operation || ' of ' || MIN(sku) || ' by ' || actor FROM movements
                 WHERE request_id IS NOT NULL AND operation NOT IN ('RECEIVE', 'ADJUST')
                 GROUP BY actor, request_id, operation
                 HAVING COUNT(*) > COUNT(DISTINCT sku || '@' || location) OR COUNT(DISTINCT reservation_id) > 1",
    },
    Equation {
        invariant: "I11",
        rule: "a key has moved a record once by Receive or Adjust, and once by SyncMovements",
        // All three have keys of their own, and the last books what the first two do.
        broken: "SELECT operation || ' of ' || MIN(sku) || ' by ' || actor FROM movements
                 WHERE request_id IS NOT NULL AND operation IN ('RECEIVE', 'ADJUST')
                 GROUP BY actor, request_id, operation HAVING COUNT(*) > 2",
    },
    Equation {
        invariant: "I11",
        rule: "a key has made one product",
        broken: "SELECT MIN(sku) || ' by ' || caller FROM products GROUP BY caller, request_id HAVING COUNT(*) > 1",
    },
    Equation {
        invariant: "I11",
        rule: "a key has made one reservation",
        broken: "SELECT caller FROM reservations GROUP BY caller, request_id HAVING COUNT(*) > 1",
    },
];
