//! Fields: one state per strategy, side by side, so that two strategies on one field never disturb each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::stamp::{Author, Stamp};
use super::text::Text;
use crate::limits;
use crate::op::FieldOp;
use crate::value::Value;

/// A value that no later entry has seen, and who wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Living {
    /// The value.
    pub value: Value,
    /// Its writer.
    pub stamp: Arc<Stamp>,
}

/// Elements of a set with the adds that nobody has removed.
pub type Elements = BTreeMap<Value, Vec<Arc<Stamp>>>;

/// The state of one field.
#[derive(Debug, Clone, Default)]
pub struct Field {
    pub(crate) register: Vec<Living>,
    pub(crate) counter: Option<i64>,
    pub(crate) set: Option<Box<Elements>>,
    pub(crate) text: Option<Box<Text>>,
}

impl Field {
    /// The register's winner: the living value with the latest effective time.
    pub fn shown(&self) -> Option<&Living> {
        self.register.iter().max_by(|a, b| a.stamp.cmp_by_time(&b.stamp))
    }

    /// The register's living values, in the order of the log.
    pub fn living(&self) -> &[Living] {
        &self.register
    }

    /// The counter's sum; none if it was never incremented. It saturates at the ends of 64 bits.
    pub fn counter(&self) -> Option<i64> {
        self.counter
    }

    /// The set's elements in the order of values; none if it was never used.
    pub fn set(&self) -> Option<impl ExactSizeIterator<Item = &Value>> {
        self.set.as_ref().map(|elements| elements.keys())
    }

    /// Whether the set holds an element.
    pub fn contains(&self, element: &Value) -> bool {
        self.set.as_ref().is_some_and(|elements| elements.contains_key(element))
    }

    /// Whether the field has rich content.
    pub fn is_text(&self) -> bool {
        self.text.is_some()
    }

    /// Every stamp the field keeps.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = &Arc<Stamp>> {
        let adds = self.set.iter().flat_map(|elements| elements.values().flatten());
        self.register.iter().map(|living| &living.stamp).chain(adds)
    }

    /// A copy whose rich content is only marked as there: what pending entries are laid on.
    pub(crate) fn without_rich_content(&self) -> Self {
        Self {
            register: self.register.clone(),
            counter: self.counter,
            set: self.set.clone(),
            text: self.text.as_ref().map(|_| Box::default()),
        }
    }

    /// Lays one op. Kinds that this build does not know were turned away before.
    pub(crate) fn lay(&mut self, author: &Author, op: &FieldOp) {
        match op {
            FieldOp::Set(value) => self.set_value(author, value),
            FieldOp::Increment(by) => self.counter = Some(self.counter.unwrap_or(0).saturating_add(*by)),
            FieldOp::Add(elements) => {
                let set = self.set.get_or_insert_default();
                for element in elements {
                    let adds = set.entry(element.clone()).or_default();
                    adds.retain(|add| !author.saw(add));
                    adds.push(author.stamp.clone());
                }
            }
            FieldOp::Remove(elements) => {
                let set = self.set.get_or_insert_default();
                for element in elements {
                    if let Some(adds) = set.get_mut(element) {
                        adds.retain(|add| !author.saw(add));
                        if adds.is_empty() {
                            set.remove(element);
                        }
                    }
                }
            }
            // The content of a pending edit lives in the overlay's document, not in the record.
            FieldOp::Edit(edit) => {
                let text = self.text.get_or_insert_default();
                if author.stamp.offset().is_some() {
                    text.take(edit);
                }
            }
            FieldOp::Unknown(..) => {}
        }
    }

    fn set_value(&mut self, author: &Author, value: &Value) {
        self.register.retain(|living| !author.saw(&living.stamp));
        self.register.push(Living { value: value.clone(), stamp: author.stamp.clone() });
        if self.register.len() > limits::REGISTER_VALUES_MAX {
            let lowest = (0..self.register.len())
                .min_by(|a, b| self.register[*a].stamp.cmp_by_time(&self.register[*b].stamp))
                .unwrap_or(0);
            self.register.remove(lowest);
        }
    }
}
