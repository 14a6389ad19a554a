# frozen_string_literal: true

module SidekiqFlow::Companion
  # A job is done: takes it out of flight, keeps its output, counts down its
  # barriers and pushes what follows, in one step.
  #
  # A chain's continuation always fires, so its plan goes along at once. The
  # jobs of a group send none, but for the last one. Which one that is, is for the
  # script to say: it names the callback that fires, and is sent again with its
  # plan, where that was not foreseen.
  class Completion
    def initialize(unit, job, fields)
      @unit = unit
      @job = job
      @fields = fields
      @stack = Callback.stack(job)
      @top_down = @stack.reverse
      @kinds = @top_down.map(&:kind)
      @planned = 0
    end

    # Works out what follows, as far as it can be foreseen, and writes none of it.
    def prepare
      plan(firing)
    end

    def advance
      return if @stack.empty? && memory_key.empty?

      loop do
        reply = SidekiqFlow::Companion.patiently(@unit.config.logger) { send_script }
        case reply[0]
        when "DONE", "GONE" then return pour
        when "PLAN" then plan(reply[1])
        when "EXPIRED"
          raise BarrierExpired, "The barrier #{reply[1]} is gone, so the run cannot go on from here. " \
            "It expired, or it was deleted."
        when "TYPE"
          raise WrongType, "The Redis key #{reply[1].inspect} holds another type than a workflow needs there."
        end
        # STAGE: what was staged has vanished; it is staged again.
      end
    end

    private

    def run_id
      SidekiqFlow::Companion.run_id(@job)
    end

    # The step has left flight: what is left of a fan-out is poured by the next
    # beat of any process, where Redis is away now.
    def pour
      return unless @plan&.fanout?

      @unit.config.redis { |conn| Fanouts.pour_all(conn, @unit.config.logger) }
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      Trouble.say(@unit.config.logger, error)
    end

    # For the callback of that number (1 is the top; 0: none).
    def plan(number)
      @planned = number
      @plan = nil
      return if number.zero?

      @plan = Plan.new(@top_down[number - 1].remaining, @stack[0...-number],
        run_id: run_id, finished: @job, queue: @unit.queue_name, config: @unit.config)
    end

    # The number of the callback that fires when this job is done. A look that
    # writes nothing; what it sees may have changed by the time of the script.
    def firing
      return 1 if @kinds.first == "f"
      return 0 unless @kinds.include?("f")

      counted = unit_id
      look.each_with_index do |(value, marker, units), index|
        return 0 if value.nil? || marker.to_i != -1 || units.include?(counted) || value.to_i > 1
        return index + 1 if @kinds[index] == "f"
        return 0 if @kinds[index] == "s"

        counted = @top_down[index].barrier
      end
      0
    rescue Refused # a key of another type: the script will say so
      0
    end

    # [value, marker, units counted that may be this job's] of each callback.
    def look
      units = [unit_id, *@top_down.map(&:barrier)]
      replies = SidekiqFlow::Companion.patiently(@unit.config.logger) do
        @unit.config.redis do |conn|
          conn.pipelined do |pipeline|
            @top_down.zip(units) do |callback, unit|
              barrier, ran, set = callback.keys
              pipeline.call("GET", barrier)
              pipeline.call("GET", ran)
              pipeline.call("SISMEMBER", set, unit)
            end
          end
        end
      end
      replies.each_slice(3).zip(units).map { |(value, marker, counted), unit| [value, marker, counted.to_i == 1 ? [unit] : []] }
    end

    def send_script
      plan_keys, plan_arguments = @plan ? @plan.writes : [[], [0, 0, 0, 0]]
      memory_ttl = SidekiqFlow::Companion.memory&.ttl || 0
      keys = [memory_key, "queues", "schedule", *@top_down.flat_map(&:keys), *plan_keys]
      arguments = [unit_id, Plan.barrier_ttl(nil, @stack), memory_ttl, @fields.size / 2, *@fields, @kinds.size, *@kinds]
      @unit.advance(keys, [*arguments, @planned, *plan_arguments])
    end

    # It is kept alive with every step, also by those that write nothing there.
    def memory_key
      SidekiqFlow::Companion.memory_key(@job)
    end

    # What the barriers count: the jid.
    def unit_id
      jid = @job["jid"]
      (jid.is_a?(String) && !jid.empty?) ? jid : SidekiqFlow::Companion.fingerprint(@unit.job)
    end
  end
end
