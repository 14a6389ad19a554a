# frozen_string_literal: true

module SidekiqFlow::Companion
  # Fan-outs that are too large for one script: staged as a list to which no run
  # refers yet, made part of the run by the script that advances it, then poured
  # into the queues a part at a time. After a crash any process pours what is left.
  module Fanouts
    FANOUTS = "swf:fanouts"

    # Elements and bytes of one part: what one script stages or pours.
    PART_ELEMENTS = 1000
    PART_BYTES = 1024 * 1024

    # Seconds after which a list that is not committed expires.
    STAGE_TTL = 3600

    # Those that wait, since a key is of another type; each is logged once.
    WAITING = Set.new

    class << self
      def key(id)
        "swf:fanout:#{id}"
      end

      # Stages a list of elements (see stage.lua); its ID.
      def stage(conn, elements)
        id = SecureRandom.hex(12)
        length = 0
        parts(elements).each do |part|
          Scripts.run(conn, "stage", [key(id), FANOUTS], [STAGE_TTL, id, length, *part])
          length += part.size
        end
        id
      end

      # Pushes all that is left of the fan-outs that are committed.
      def pour_all(conn, logger)
        ids = conn.call("ZRANGE", FANOUTS, 0, -1)
        ids.each { |id| pour(conn, logger, id) }
      end

      private

      def pour(conn, logger, id)
        loop do
          outcome, of = Scripts.run(conn, "pour", [FANOUTS, key(id), "queues", "schedule"], [id, PART_ELEMENTS, PART_BYTES])
          next if outcome == "MORE"
          return WAITING.delete(id) if outcome == "DONE"

          logger.error("The Redis key #{of.inspect} holds another type, so a fan-out waits. Remove it.") if WAITING.add?(id)
          return
        end
      end

      def parts(elements)
        found = [[]]
        size = 0
        elements.each do |element|
          if found.last.size == PART_ELEMENTS || size >= PART_BYTES
            found << []
            size = 0
          end
          found.last << element
          size += element.bytesize
        end
        found
      end
    end
  end
end
