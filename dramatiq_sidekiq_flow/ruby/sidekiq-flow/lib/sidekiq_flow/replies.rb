# frozen_string_literal: true

module SidekiqFlow::Companion
  # Reads the replies of the scripts: one reader for each script, which returns a
  # value, or raises the error that the reply stands for. The head of each script
  # lists its replies; in Python, store/outcomes.py is the same.
  module Replies
    # Nothing is written: the callback of that number fires (1 is the top), and the
    # script needs its plan.
    NeedsPlan = Struct.new(:callback)

    # The number of steps of a run, to which another replacement has added some.
    Total = Struct.new(:value)

    # Nothing is written: the run of that id has the unique key, and lives.
    Taken = Struct.new(:run_id)

    # A fan-out waits because that Redis key is of another type.
    Blocked = Struct.new(:key)

    # What a heartbeat found: members that are dead, members of this process with
    # more in flight than they hold, and whether a fan-out is not pushed to its end.
    Beat = Struct.new(:dead, :differing, :fanouts)

    # How many jobs of a dead worker are back in their queue, went to `dead`, and
    # wait for a trial; the numbers (1 is the first) of those that went to `dead`,
    # and of those that stay because `dead` is of another type.
    Recovered = Struct.new(:back, :dead, :alone, :buried, :kept)

    # The numbers (1 is the first) of due jobs whose queue is of another type, and
    # of those that stay because `dead`, `queues` or the set itself is.
    Promoted = Struct.new(:misplaced, :stuck)

    class << self
      # :done, :gone (not in flight here: sent twice, or recovered elsewhere),
      # :cancelled (done, and the run is cancelled: nothing of it starts),
      # :stage_lost (nothing is written: the staged fan-out expired), or NeedsPlan.
      def advance(reply)
        kind, detail = reply
        case kind
        when "DONE" then :done
        when "GONE" then :gone
        when "CANCELLED" then :cancelled
        when "PLAN" then NeedsPlan.new(detail)
        when "STAGE" then :stage_lost
        when "EXPIRED"
          raise BarrierExpired, "The barrier #{detail} is gone, so the run cannot continue from here. " \
            "It expired, or it was deleted."
        else
          raise WrongType.of(detail)
        end
      end

      # :done, :started (a run of this id was started before), :stage_lost (nothing is
      # written: the staged fan-out expired), or Taken.
      def start(reply)
        kind, detail = checked(reply)
        case kind
        when "DONE" then :done
        when "STARTED" then :started
        when "STAGE" then :stage_lost
        else Taken.new(detail)
        end
      end

      # As advance, or Total (nothing is written).
      def replace(reply)
        kind, total = reply
        (kind == "TOTAL") ? Total.new(total) : advance(reply)
      end

      # The number of steps that a signal moved to their queues, :ended (the run is done or
      # cancelled), or :unknown.
      def signal(reply)
        kind, moved = checked(reply)
        {"DONE" => moved, "ENDED" => :ended, "UNKNOWN" => :unknown}.fetch(kind)
      end

      # Returns when the job has left flight, by this call or before it; or :stage_lost
      # (nothing is written: the staged fan-out expired).
      def fail(reply)
        kind, key = reply
        raise WrongType, "The Redis key #{key.inspect} is of another type. Remove it." if kind == "TYPE"

        :stage_lost if kind == "STAGE"
      end

      # Returns when the job has left flight, by this call or before it.
      def park(reply)
        checked(reply)
      end

      # The payload of the one job that was asked for, nil if the queue is empty, or
      # :unregistered if this worker was declared dead.
      def fetch(reply)
        return :unregistered if reply.nil?

        lengths, payload = checked(reply)
        payload unless lengths.empty?
      end

      # The payload of a suspect, or nil if none is to be tried now.
      def trial(reply)
        kind, payload = checked(reply)
        payload if kind == "TRIAL"
      end

      def beat(reply)
        dead, differing, fanouts = reply
        Beat.new(dead, differing, fanouts == 1)
      end

      # Recovered, or nil if the worker lives.
      def recover(reply)
        kind, *found = checked(reply)
        Recovered.new(*found) if kind == "DONE"
      end

      def promote(reply)
        _moved, misplaced, stuck = reply
        Promoted.new(misplaced, stuck)
      end

      # :more (call again), :done, or Blocked.
      def pour(reply)
        kind, key = reply
        case kind
        when "MORE" then :more
        when "DONE" then :done
        else Blocked.new(key)
        end
      end

      private

      def checked(reply)
        kind, key = reply
        raise WrongType.of(key) if kind == "TYPE"

        reply
      end
    end
  end
end
