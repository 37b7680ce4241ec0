-- Whose a reservation is that the inventory tells of.
CREATE INDEX orders_by_reservation ON orders (reservation_id);
-- From here on a step that is put off has no holder in saga_steps: the inventory's news makes it due at once.
