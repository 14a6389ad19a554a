# frozen_string_literal: true

module SidekiqFlow::Companion
  # Everything that starting a node writes (Python's twin is workflow/plan.py):
  #
  # * a job is pushed with the stack, to `schedule` if it is delayed;
  # * a chain makes a barrier of 1 for the rest, and starts its first child;
  # * a group makes a barrier of its size, and starts every child;
  # * an empty node completes at once; delayed, it becomes a NoopWorker job.
  #
  # A step whose class is not a Ruby constant belongs to the other language: it is
  # pushed as it stands in the tree, with Sidekiq's defaults for what is missing.
  class Plan
    include Sidekiq::JobUtil

    # A plan with more jobs or barriers, or with more bytes, is staged first, so
    # that no single script holds Redis up for long.
    MAX_INLINE = 1000
    MAX_BYTES_INLINE = 1024 * 1024

    CONSTANT = /\A[A-Z]\w*(::[A-Z]\w*)*\z/

    # The Ruby job class of that name, for its sidekiq_options; nil if there is none.
    def self.class_of(name)
      return nil unless name.match?(CONSTANT) && Object.const_defined?(name)

      found = Object.const_get(name)
      found if found.is_a?(Class) && found.respond_to?(:get_sidekiq_options)
    rescue TypeError # A::B, and A is not a module
      nil
    end

    def initialize(node, stack, run_id:, finished:, queue:, config:)
      @run_id = run_id
      @finished = finished
      @queue = queue
      @config = config
      @now = Time.now.to_f
      @ttl = Lifetimes.barrier_ttl(node, stack)
      @dialect = Dialect.current
      @inherited = Inherited.from(finished)
      # The tag by which Sidekiq's Web UI finds a run's jobs.
      @tags = Array(finished["tags"]) & ["wf:#{run_id.to_s[0, 8]}"]
      @barriers = {}
      @pushes = Hash.new { |queues, name| queues[name] = [] }
      @scheduled = []
      @jids = Set.new
      @completes = start(node, stack, 0)
    end

    # Whether the node has no job to run: what comes after it is due now.
    def completes?
      @completes
    end

    # Makes the barrier of one unit, of a callback below all jobs of the plan.
    def add_barrier(id)
      @barriers[id] = [1, -1]
    end

    # [keys, arguments] as advance.lua reads a plan. A large plan is staged now.
    def writes
      return staged if fanout?

      keys = [*@barriers.keys, *@pushes.keys.map { |queue| "queue:#{queue}" }]
      arguments = [@barriers.size, *barriers.flat_map { |_, ttl, value, _| [ttl, value] },
        @pushes.size, *@pushes.values.flat_map { |jobs| [jobs.size, *jobs] },
        @scheduled.size, *@scheduled.flatten]
      [keys, arguments]
    end

    # Whether it is too large for one script.
    def fanout?
      jobs = @pushes.sum { |_, pushed| pushed.size } + @scheduled.size
      # One job is one element, staged or not, so it is not staged for its size.
      [jobs, @barriers.size].max > MAX_INLINE || (jobs > 1 && bytes > MAX_BYTES_INLINE)
    end

    private

    # Starts a node. Returns true if it completes at once.
    def start(node, stack, delay)
      case node["__type__"]
      when "with_delay" then start(node["task"], stack, delay + node["delay"])
      when "job" then push(node, stack, delay)
      else
        children = Tree.children(node)
        if children.empty?
          delay.zero? || push(noop, stack, delay)
        elsif node["__type__"] == "group"
          start_group(children, stack, delay)
        else
          start_chain(children, stack, delay)
        end
      end
    end

    def start_chain(children, stack, delay)
      until children.empty?
        first, *rest = children
        return start(first, stack, delay) if rest.empty?

        barrier = make_barrier(1)
        remaining = Callback.new(barrier, {"__type__" => "chain", "children" => rest}, false)
        return false unless start(first, [*stack, remaining], delay)

        # It completed at once: the rest starts now, without the delay, which was
        # that of the first child.
        @barriers[barrier] = [0, 0]
        children = rest
        delay = 0
      end
      true
    end

    def start_group(children, stack, delay)
      barrier = make_barrier(children.size)
      below = [*stack, Callback.new(barrier, nil, true)]
      left = children.count { |child| !start(child, below, delay) }
      @barriers[barrier] = left.zero? ? [0, 0] : [left, -1]
      left.zero?
    end

    def make_barrier(value)
      SecureRandom.uuid.tap { |id| @barriers[id] = [value, -1] }
    end

    # Pushes as Sidekiq::Client#push does, but leaves the write to the script. Returns
    # false: a job does not complete at once.
    def push(node, stack, delay)
      add(prepared(node, stack, delay))
      false
    end

    # The payload of a job, after client middleware.
    def prepared(node, stack, delay)
      job_class = constant(node["class"]) || node["class"]
      item = normalized(item(node, job_class, stack, delay))
      item["tags"] = Array(item["tags"]) | @tags unless @tags.empty?
      payload = Pushes.planned do
        @config.client_middleware.invoke(job_class, item, item["queue"], @config.redis_pool) { item }
      end
      raise PushStopped, "A client middleware did not let #{node["class"]} be pushed" unless payload.is_a?(Hash)

      payload
    end

    # The options of the node itself come last: a tenant that was given to the step
    # is not overwritten.
    def item(node, job_class, stack, delay)
      item = @inherited.merge(node, "class" => job_class)
      item.delete("__type__")
      item[@dialect.run_id] = @run_id
      item[@dialect.callbacks] = stored(stack) unless stack.empty?
      item["at"] = @now + (delay / 1000.0) if delay > 0
      # An explicit id is kept, but only once: a barrier counts each id once.
      item.delete("jid") unless item["jid"].is_a?(String) && @jids.add?(item["jid"])
      item
    end

    def add(payload)
      at = payload.delete("at")
      if at
        @scheduled << [at.to_s, Sidekiq.dump_json(payload.reject { |key, _| key == "enqueued_at" })]
      else
        payload["enqueued_at"] = Payload.stamp(@now)
        @pushes[payload["queue"]] << Sidekiq.dump_json(payload)
      end
    end

    def normalized(item)
      normalize_item(item)
    rescue ArgumentError => error
      raise InvalidNode, error.message
    end

    def constant(name)
      raise InvalidNode, "A job needs the name of a class, not #{name.inspect}" unless name.is_a?(String)

      self.class.class_of(name)
    end

    # All children of a group share one stack: it is stored once.
    def stored(stack)
      unless stack.equal?(@stored_stack)
        @stored_stack = stack
        @stored = Dialect.current.gem.configuration.callback_storage.store(stack.map(&:to_a))
      end
      @stored
    end

    # The job of an empty node that is delayed.
    def noop
      {"class" => @dialect.noop_class, "args" => [], "retry" => 0, "queue" => noop_queue}
    end

    # A queue that this process consumes: `default`, as in the gem, else the queue of
    # the finished job.
    def noop_queue
      config = @config.respond_to?(:capsules) ? @config : @config.config # that of a capsule
      consumed = config.capsules.each_value.flat_map(&:queues)
      consumed.include?("default") ? "default" : @queue
    end

    def bytes
      @pushes.sum { |_, jobs| jobs.sum(&:bytesize) } + @scheduled.sum { |_, payload| payload.bytesize }
    end

    # [id, ttl, value, ran] of each.
    def barriers
      @barriers.map { |id, (value, ran)| [id, value.zero? ? Lifetimes::RELEASED_TTL : @ttl, value, ran] }
    end

    def staged
      elements = elements_to_stage
      id = @config.redis { |conn| Fanouts.stage(conn, elements) }
      queues = @scheduled.empty? ? @pushes.keys : [*@pushes.keys, ""]
      [[Fanouts.key(id), Fanouts::FANOUTS], [0, 0, 0, 1, id, elements.size, queues.size, *queues]]
    end

    # The elements as pour.lua describes them.
    def elements_to_stage
      [
        *barriers.map { |id, ttl, value, ran| "b#{ttl} #{value} #{ran} #{id}" },
        *@pushes.flat_map { |queue, jobs| ["q#{queue}", *jobs] },
        *@scheduled.map { |at, payload| "s#{at} #{payload}" }
      ]
    end
  end
end
