-- Records that a terminal event has ended a generation. Every node that delivers the event calls this.
-- KEYS: running generations. ARGV: task id, or '' if the event names none; the event's offset.
settle(KEYS[1], ARGV[1], tonumber(ARGV[2]))
