# frozen_string_literal: true

module SidekiqFlow::Companion
  # Fan-outs that are too large for one script. They are staged as a list that no
  # run refers to, committed by the script that advances the run, then poured into
  # the queues part by part. After a crash, any process pours the rest.
  module Fanouts
    FANOUTS = "swf:fanouts"

    # The most elements and bytes that one script stages or pours.
    PART_ELEMENTS = 1000
    PART_BYTES = 1024 * 1024

    # Seconds after which a list that is not committed expires.
    STAGE_TTL = 3600

    # Fan-outs that wait because a key is of another type; each is logged once.
    WAITING = Set.new

    class << self
      def key(id)
        "swf:fanout:#{id}"
      end

      # Stages a list of elements (see pour.lua). Returns its ID.
      def stage(conn, elements)
        id = SecureRandom.hex(12)
        parts(elements).each do |part|
          # One transaction, so that the list never lacks its TTL. Sent once, so that no part is there twice.
          conn.multi do |transaction|
            transaction.call_once("RPUSH", key(id), *part)
            transaction.call_once("EXPIRE", key(id), STAGE_TTL)
          end
        end
        id
      end

      # Pushes the rest of all committed fan-outs.
      def pour_all(conn, logger)
        ids = conn.call("ZRANGE", FANOUTS, 0, -1)
        ids.each { |id| pour(conn, logger, id) }
      end

      private

      def pour(conn, logger, id)
        loop do
          keys = [FANOUTS, key(id), "queues", "schedule"]
          outcome = Replies.pour(Scripts.run(conn, "pour", keys, [id, PART_ELEMENTS, PART_BYTES]))
          next if outcome == :more
          return WAITING.delete(id) if outcome == :done

          log_waiting(logger, outcome.key) if WAITING.add?(id)
          return nil
        end
      end

      def log_waiting(logger, key)
        logger.error("The Redis key #{key.inspect} holds another type, so a fan-out waits. Remove it.")
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
