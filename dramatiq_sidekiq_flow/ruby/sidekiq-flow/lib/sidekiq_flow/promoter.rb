# frozen_string_literal: true

module SidekiqFlow::Companion
  # Sidekiq's enqueuer (config[:scheduled_enq]): moves due jobs from `schedule` and
  # `retry` to their queues, each in one step, where Sidekiq's own removes a job
  # first and pushes it second. A job that cannot be read goes to `dead`.
  #
  # Unlike in Sidekiq's own, client middleware does not run again here: two pollers
  # may read the same job, and only one of them will move it.
  class Promoter
    include Sidekiq::Component
    include Sidekiq::JobUtil

    BATCH = 100

    # With an +error+ it goes to `dead`, and has no queue.
    Promotion = Struct.new(:member, :queue, :payload, :error)

    def initialize(config)
      @config = config
      @done = false
      @complained = {}
    end

    def enqueue_jobs(sets = %w[retry schedule])
      sets.each do |set|
        enqueue_due(set)
      rescue RedisClient::Error, ConnectionPool::TimeoutError => error
        return Trouble.log(logger, error) if Trouble.passes?(error)

        # A set of another type does not stop the other set.
        complain(set, "#{set} cannot be read: #{error.message}")
      end
    end

    def terminate
      @done = true
    end

    private

    def enqueue_due(set)
      stuck = 0
      until @done
        command = ["ZRANGE", set, "-inf", Time.now.to_f.to_s, "BYSCORE", "LIMIT", stuck, BATCH]
        members = redis { |conn| conn.call(*command) }
        stuck += promote(set, members.map { |member| promotion(member) }) unless members.empty?
        break if members.size < BATCH
      end
      return unless stuck > 0

      complain(set, "#{stuck} due jobs of #{set} can go nowhere: `dead` or `queues` is of another type. Remove it")
    end

    # Logs once a minute for each set.
    def complain(set, text)
      now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
      return if @complained[set] && now - @complained[set] < 60

      @complained[set] = now
      logger.error(text)
    end

    # Moves jobs. Returns how many stay where they are.
    def promote(set, promotions)
      misplaced, stuck = move(set, promotions)
      misplaced.map! { |found| refused(found) }
      stuck += move(set, misplaced).flatten(1) unless misplaced.empty?
      bad = [*promotions.select(&:error), *misplaced] - stuck
      unless bad.empty?
        logger.error("#{bad.size} due jobs of #{set} cannot go to a queue and are now in 'dead': " \
          "#{bad.first.error.message}: #{bad.first.member.inspect[0, 200]}")
      end
      stuck.size
    end

    def refused(found)
      error = WrongType.new("The Redis key queue:#{found.queue} is not a list, so the job cannot go there.")
      Promotion.new(found.member, "", Payload.dead(found.payload, error, found.queue), error)
    end

    # Returns the jobs whose queue is of another type, and those that stay because
    # `dead`, `queues` or the set itself is of another type.
    def move(set, promotions)
      keys = [set, "dead", "queues", *promotions.map { |found| "queue:#{found.queue}" }]
      arguments = [Time.now.to_f.to_s, *promotions.flat_map { |found| [found.member, found.queue, found.payload] }]
      left = Replies.promote(redis { |conn| Scripts.run(conn, "promote", keys, arguments) })
      [left.misplaced, left.stuck].map { |numbers| numbers.map { |number| promotions[number - 1] } }
    end

    def promotion(member)
      raw = Payload.unwrapped(member)
      error = Payload.fault(raw)
      raise error if error

      item = Payload.parse(raw)
      item.delete("at")
      item.delete("queue") if item["queue"] == "" || item["queue"].nil?
      check_queue(item)
      item["jid"] = Payload.jid(item, raw)
      item = normalize_item(item)
      item["enqueued_at"] = Payload.stamp
      Promotion.new(member, item["queue"], Sidekiq.dump_json(item))
    rescue => error
      error = InvalidPayload.new(error.message) unless error.is_a?(InvalidPayload)
      Promotion.new(member, "", Payload.dead(member, error, "default"), error)
    end

    def check_queue(item)
      return if !item.key?("queue") || item["queue"].is_a?(String)

      raise InvalidPayload, "The job's queue is not a name: #{item["queue"].inspect[0, 200]}"
    end
  end
end
