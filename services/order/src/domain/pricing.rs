//! What an order costs: the server's prices, exact arithmetic or none.

use std::collections::HashMap;

use souk_proto_common::money::MoneyError;
use souk_proto_common::{FieldError, InvalidRequest, Money, Reason};

use super::commands::Item;
use super::names::Sku;
use super::order::OrderLine;

/// What of a product an order copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Which.
    pub sku: Sku,
    /// What people read.
    pub name: String,
    /// The price of one, without tax.
    pub price: Money,
    /// The tax rate in hundredths of a percent.
    pub tax_basis_points: i32,
}

/// Products by name.
pub type Products = HashMap<Sku, Product>;

/// Why there is no price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// These are not in the catalogue.
    #[error("{} product(s) not found", .0.len())]
    NotFound(Vec<Sku>),
    /// The lines do not add up: another currency, or more than there are numbers for.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
}

/// The lines of an order for `items`, and their total.
pub fn price(items: &[Item], products: &Products) -> Result<(Vec<OrderLine>, Money), PriceError> {
    let mut missing = Vec::new();
    let mut check = souk_proto_common::Check::new();
    let mut lines: Vec<OrderLine> = Vec::with_capacity(items.len());
    let mut total: Option<Money> = None;
    for item in items {
        let Some(product) = products.get(&item.sku) else {
            missing.push(item.sku.clone());
            continue;
        };
        let added = line(item, product).and_then(|line| {
            let sum = total.unwrap_or(Money::zero(line.total.currency)).plus(line.total)?;
            Ok((line, sum))
        });
        match added {
            Ok((line, sum)) => {
                lines.push(line);
                total = Some(sum);
            }
            Err(error) => check.bad(&format!("items[{}]", item.index), field_error(error)),
        }
    }
    if !missing.is_empty() {
        return Err(PriceError::NotFound(missing));
    }
    Ok(check.finish(|| Some((lines, total?)))?)
}

fn line(item: &Item, product: &Product) -> Result<OrderLine, MoneyError> {
    let net = product.price.times(item.quantity)?;
    let tax = net.basis_points(i64::from(product.tax_basis_points))?;
    Ok(OrderLine {
        sku: item.sku.clone(),
        name: product.name.clone(),
        quantity: item.quantity,
        unit_price: product.price,
        tax_basis_points: product.tax_basis_points,
        tax,
        total: net.plus(tax)?,
    })
}

fn field_error(error: MoneyError) -> FieldError {
    match error {
        MoneyError::Overflow => {
            FieldError::new(Reason::AmountOverflow, "must leave a total that fits 64 bits of minor units")
        }
        MoneyError::CurrencyMismatch => {
            FieldError::new(Reason::CurrencyMismatch, "must be priced in the currency of the lines before it")
        }
    }
}

#[cfg(test)]
mod tests {
    use souk_proto_common::Currency;

    use super::*;

    fn item(sku: &str, quantity: i64, index: usize) -> Item {
        Item { sku: Sku::parse(sku).unwrap(), quantity, index }
    }

    fn catalogue(products: &[(&str, &str, i64, i32)]) -> HashMap<Sku, Product> {
        let product = |&(sku, currency, amount_minor, tax_basis_points): &(&str, &str, i64, i32)| Product {
            sku: Sku::parse(sku).unwrap(),
            name: format!("The {sku}"),
            price: Money { currency: Currency::parse(currency).unwrap(), amount_minor },
            tax_basis_points,
        };
        products.iter().map(product).map(|product| (product.sku.clone(), product)).collect()
    }

    fn reasons(error: PriceError) -> Vec<(String, Reason)> {
        match error {
            PriceError::Invalid(invalid) => {
                invalid.violations().iter().map(|(field, error)| (field.clone(), error.reason)).collect()
            }
            PriceError::NotFound(_) => panic!("{error}"),
        }
    }

    #[test]
    fn a_line_is_price_times_quantity_plus_tax_and_the_total_their_sum() {
        let catalogue = catalogue(&[("TEA", "EUR", 1_999, 1_900), ("CUP", "EUR", 50, 700)]);
        let (lines, total) = price(&[item("TEA", 3, 0), item("CUP", 1, 1)], &catalogue).unwrap();
        // 5997 * 0.19 = 1139.43; 50 * 0.07 = 3.5, rounded up
        assert_eq!((lines[0].tax.amount_minor, lines[0].total.amount_minor), (1_139, 7_136));
        assert_eq!((lines[1].tax.amount_minor, lines[1].total.amount_minor), (4, 54));
        assert_eq!(total.amount_minor, 7_190);
        assert_eq!((lines[0].name.as_str(), lines[0].quantity), ("The TEA", 3));
    }

    #[test]
    fn every_product_that_is_not_there_is_named() {
        let missing =
            price(&[item("A", 1, 0), item("TEA", 1, 1), item("B", 1, 2)], &catalogue(&[("TEA", "EUR", 1, 0)]));
        let expected = vec![Sku::parse("A").unwrap(), Sku::parse("B").unwrap()];
        assert_eq!(missing, Err(PriceError::NotFound(expected)));
    }

    #[test]
    fn a_product_that_overflows_is_named_be_it_by_price_tax_or_total() {
        let catalogue = catalogue(&[
            ("PRICE", "EUR", i64::MAX / 2, 0),
            ("TAX", "EUR", i64::MAX, 1_900),
            ("HALF", "EUR", i64::MAX / 2 + 1, 0),
            ("REST", "EUR", i64::MAX / 2 + 1, 0),
        ]);
        let overflow = |items: &[Item]| reasons(price(items, &catalogue).unwrap_err());
        assert_eq!(overflow(&[item("PRICE", 3, 0)]), [("items[0]".to_owned(), Reason::AmountOverflow)]);
        assert_eq!(overflow(&[item("TAX", 1, 4)]), [("items[4]".to_owned(), Reason::AmountOverflow)]);
        let total = overflow(&[item("HALF", 1, 0), item("REST", 1, 7)]);
        assert_eq!(total, [("items[7]".to_owned(), Reason::AmountOverflow)]);
    }

    #[test]
    fn lines_of_different_currencies_are_named() {
        let catalogue = catalogue(&[("TEA", "EUR", 1, 0), ("CUP", "USD", 1, 0), ("POT", "JPY", 1, 0)]);
        let mixed = price(&[item("TEA", 1, 0), item("CUP", 1, 1), item("POT", 1, 2)], &catalogue).unwrap_err();
        let expected =
            [("items[1]".to_owned(), Reason::CurrencyMismatch), ("items[2]".to_owned(), Reason::CurrencyMismatch)];
        assert_eq!(reasons(mixed), expected);
    }

    #[test]
    fn what_is_free_costs_nothing() {
        let (_, total) = price(&[item("FREE", 1_000_000, 0)], &catalogue(&[("FREE", "EUR", 0, 1_900)])).unwrap();
        assert_eq!(total.amount_minor, 0);
    }
}
