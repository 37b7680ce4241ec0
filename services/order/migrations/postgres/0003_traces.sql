-- Where the step was left in a trace, so that what is done for it later stands in the same one.
ALTER TABLE saga_steps ADD COLUMN traceparent TEXT;
