//! Money in minor units, with checked arithmetic only: nothing here wraps, rounds or mixes currencies.

use std::fmt;

use iso_currency::Currency as Iso;

use crate::v1::{self, Reason};
use crate::validation::{Check, FieldError};

/// The largest amount that a client may send: 10^12 minor units, ten billion euros.
pub const AMOUNT_MAX: i64 = 1_000_000_000_000;

/// A currency of ISO 4217.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(Iso);

impl Currency {
    /// Three letters, upper case.
    pub fn parse(code: &str) -> Result<Self, FieldError> {
        if code.is_empty() {
            return Err(FieldError::required());
        }
        Iso::from_code(code)
            .map(Self)
            .ok_or_else(|| FieldError::new(Reason::UnknownCurrency, "must be a currency code of ISO 4217, as EUR"))
    }

    /// `"EUR"`
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// Digits after the point: 2 for EUR, 0 for JPY, 3 for KWD.
    pub fn exponent(self) -> u16 {
        self.0.exponent().unwrap_or(0)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount in minor units of one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// Whose minor units.
    pub currency: Currency,
    /// How many of them.
    pub amount_minor: i64,
}

/// An amount does not fit 64 bits, or two currencies met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The exact result does not fit.
    #[error("amount overflows")]
    Overflow,
    /// The operands are of different currencies.
    #[error("currencies differ")]
    CurrencyMismatch,
}

impl Money {
    /// Nothing, in `currency`.
    pub fn zero(currency: Currency) -> Self {
        Self { currency, amount_minor: 0 }
    }

    /// The sum, or why there is none.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch);
        }
        let amount_minor = self.amount_minor.checked_add(other.amount_minor).ok_or(MoneyError::Overflow)?;
        Ok(Self { amount_minor, ..self })
    }

    /// So many times the amount.
    pub fn times(self, count: i64) -> Result<Self, MoneyError> {
        let amount_minor = self.amount_minor.checked_mul(count).ok_or(MoneyError::Overflow)?;
        Ok(Self { amount_minor, ..self })
    }

    /// So many basis points (1/100 of a percent) of the amount, half a minor unit rounded away from zero.
    pub fn basis_points(self, points: i64) -> Result<Self, MoneyError> {
        let exact = i128::from(self.amount_minor) * i128::from(points);
        let half = if exact < 0 { -5_000 } else { 5_000 };
        let amount_minor = i64::try_from((exact + half) / 10_000).map_err(|_| MoneyError::Overflow)?;
        Ok(Self { amount_minor, ..self })
    }

    /// A price or a total that a client sent: 0 to [`AMOUNT_MAX`], a known currency; bad fields are noted in `check`.
    pub fn parse(check: &mut Check, money: &v1::Money) -> Option<Self> {
        let currency = check.field("currency_code", Currency::parse(&money.currency_code));
        let amount = check.field("amount_minor", crate::validation::within(money.amount_minor, 0..=AMOUNT_MAX));
        Some(Self { currency: currency?, amount_minor: amount? })
    }
}

impl From<Money> for v1::Money {
    fn from(money: Money) -> Self {
        Self { currency_code: money.currency.code().to_owned(), amount_minor: money.amount_minor }
    }
}

impl fmt::Display for Money {
    /// `19.99 EUR`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.currency.exponent());
        let scale = 10_u64.pow(u32::from(self.currency.exponent()));
        let sign = if self.amount_minor < 0 { "-" } else { "" };
        let (whole, rest) = (self.amount_minor.unsigned_abs() / scale, self.amount_minor.unsigned_abs() % scale);
        if digits == 0 {
            return write!(f, "{sign}{whole} {}", self.currency.code());
        }
        write!(f, "{sign}{whole}.{rest:0digits$} {}", self.currency.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(code: &str, amount_minor: i64) -> Money {
        Money { currency: Currency::parse(code).unwrap(), amount_minor }
    }

    #[test]
    fn arithmetic_is_exact_or_refused() {
        assert_eq!(money("EUR", i64::MAX).plus(money("EUR", 1)), Err(MoneyError::Overflow));
        assert_eq!(money("EUR", i64::MAX / 2).times(3), Err(MoneyError::Overflow));
        assert_eq!(money("EUR", 1).plus(money("USD", 1)), Err(MoneyError::CurrencyMismatch));
        assert_eq!(money("EUR", 250).times(4), Ok(money("EUR", 1000)));
    }

    #[test]
    fn half_a_minor_unit_of_tax_rounds_away_from_zero() {
        assert_eq!(money("EUR", 50).basis_points(1_900), Ok(money("EUR", 10))); // 9.5
        assert_eq!(money("EUR", -50).basis_points(1_900), Ok(money("EUR", -10)));
        assert_eq!(money("EUR", i64::MAX).basis_points(20_000), Err(MoneyError::Overflow));
        assert_eq!(money("EUR", i64::MAX).basis_points(10_000), Ok(money("EUR", i64::MAX)));
    }

    #[test]
    fn money_is_shown_with_the_exponent_of_its_currency() {
        assert_eq!(money("EUR", -1_905).to_string(), "-19.05 EUR");
        assert_eq!(money("JPY", 1_999).to_string(), "1999 JPY");
        assert_eq!(money("KWD", 1_999).to_string(), "1.999 KWD");
    }

    #[test]
    fn a_currency_is_known_and_upper_case() {
        for bad in ["eur", "EURO", "ZZZ", "€"] {
            assert_eq!(Currency::parse(bad).unwrap_err().reason, Reason::UnknownCurrency, "{bad}");
        }
    }
}
