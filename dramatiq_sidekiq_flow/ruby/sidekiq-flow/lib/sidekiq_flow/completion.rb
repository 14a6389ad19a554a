# frozen_string_literal: true

module SidekiqFlow::Companion
  # Completes a job that is done: takes it out of flight, keeps its output, counts
  # down its barriers and pushes the next steps, in one step.
  #
  # A chain's continuation always fires, so its plan is sent at once. Of the jobs of
  # a group only the last one sends a plan. The script decides which one that is: it
  # names the callback that fires, and is sent again with the plan, unless that was
  # foreseen.
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

    # Plans the next steps as far as they can be foreseen, and writes nothing.
    def prepare
      plan(firing)
    end

    def advance
      return if Run.callback?(@job) || (@stack.empty? && memory_key.empty? && step.key.empty?)

      loop do
        outcome = Trouble.patiently(@unit.config.logger) { send_script }
        case outcome
        when :done, :gone then return pour
        when :cancelled then return
        when Replies::NeedsPlan then plan(outcome.callback)
        when :stage_lost then next # the plan stages it again
        end
      end
    end

    private

    def run_id
      Run.id(@job)
    end

    # The step has left flight: if Redis is unavailable now, the next heartbeat of any
    # process pours the rest of the fan-out.
    def pour
      return unless @plan&.fanout?

      @unit.config.redis { |conn| Fanouts.pour_all(conn, @unit.config.logger) }
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      Trouble.log(@unit.config.logger, error)
    end

    # Plans for the callback of that number (1 is the top, 0 none).
    def plan(number)
      @planned = number
      @plan = nil
      return if number.zero?

      @plan = Plan.new(@top_down[number - 1].remaining, @stack[0...-number],
        run_id: run_id, finished: @job, queue: @unit.queue_name, config: @unit.config)
    end

    # The number of the callback that fires when this job is done. It only reads, so
    # it may be wrong by the time that the script runs.
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
      replies = Trouble.patiently(@unit.config.logger) do
        @unit.config.redis { |conn| conn.pipelined { |pipeline| read_barriers(pipeline, units) } }
      end
      replies.each_slice(3).zip(units).map do |(value, marker, counted), unit|
        [value, marker, (counted.to_i == 1) ? [unit] : []]
      end
    end

    def read_barriers(pipeline, units)
      @top_down.zip(units) do |callback, unit|
        barrier, ran, set = callback.keys
        pipeline.call("GET", barrier)
        pipeline.call("GET", ran)
        pipeline.call("SISMEMBER", set, unit)
      end
    end

    def send_script
      plan_keys, plan_arguments = @plan ? @plan.writes : [[], []]
      memory_ttl = Memory.current&.ttl || 0
      keys = [memory_key, step.key, *@top_down.map(&:barrier), *plan_keys]
      ttl = Lifetimes.barrier_ttl(nil, @stack)
      # The next job is pushed: Sidekiq's processors fetch their jobs themselves.
      keep = ""
      arguments = [unit_id, ttl, memory_ttl, keep, step.text, @fields.size / 2, *@fields, @kinds.join]
      @unit.advance(keys, [*arguments, @planned, *plan_arguments])
    end

    # What the record of the run holds of this step.
    def step
      @step ||= StepRecord.new(@job)
    end

    # Each step extends its TTL, also a step that writes nothing there.
    def memory_key
      Memory.key_for(@job)
    end

    # The id that the barriers count: the jid.
    def unit_id
      Payload.jid(@job, @unit.job)
    end
  end
end
