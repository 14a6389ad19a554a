# frozen_string_literal: true

module SidekiqFlow::Web
  # The state of each step of a run, one letter for each: from the marks of its record,
  # the jobs that were found, and the tree.
  class StepStates
    # Letter -> name, in the order in which the numbers of repeated steps are shown.
    NAMES = {
      "d" => "done", "i" => "inferred", "x" => "dead", "r" => "running", "t" => "retry", "q" => "queued",
      "s" => "scheduled", "p" => "parked", "w" => "signal",
      "o" => "open", "c" => "skipped"
    }.freeze
    LETTERS = NAMES.invert.freeze

    # Of several steps in one line, the state of the first of these is shown.
    URGENT = "xtrqswpocdi"

    # Of several jobs of a step, the state of the last of these is taken: that job goes on first.
    OF_JOBS = %w[dead retry scheduled signal parked queued running].freeze

    # +jobs+: the jobs that were found.
    def initialize(tree, record, jobs)
      @tree = tree
      @letters = marked(record)
      jobs.sort_by { |job| OF_JOBS.index(job.state) }.each { |job| mark(job.number, job.state) }
      record.failed_numbers.each { |number| mark(number, "dead") if self[number] == "open" }
      conclude(record)
    end

    # The name of the state of a step; nil if the run has no such step.
    def [](number)
      NAMES[@letters[number]] if number&.positive?
    end

    # State -> number of steps, of a range of steps; without states that none of them has.
    def counts(first = 1, count = @tree.steps)
      part = @letters[first, count]
      NAMES.each_with_object({}) do |(letter, name), counts|
        number = part.count(letter)
        counts[name] = number if number.positive?
      end
    end

    # The state that a range of steps is shown with.
    def urgent(first, count)
      part = @letters[first, count]
      NAMES.fetch(URGENT.each_char.find { |letter| part.include?(letter) } || "o")
    end

    private

    def marked(record)
      # The first bit belongs to number 0, which is not a step.
      bits = record.bits.unpack1("B*")[0, @tree.steps + 1].tr("01", "od")
      letters = bits.ljust(@tree.steps + 1, "o")
      letters[0] = " "
      record.timed_numbers.each { |number| letters[number] = "d" if number <= @tree.steps }
      letters
    end

    # A step that is done stays done.
    def mark(number, state)
      return unless number&.between?(1, @tree.steps) && @letters[number] != "d"

      @letters[number] = LETTERS.fetch(state)
    end

    def conclude(record)
      infer(@tree.root, 1)
      skip(@tree.root, 1)
      fill(0, @letters.size, "i") if record.state == "done"
      fill(0, @letters.size, "c") if record.state == "cancelled"
    end

    # Marks the steps in front of one that exists, or is done, as done.
    def infer(node, first)
      return if node.step? || !mixed?(first, node.steps)

      case node.kind
      when :chain then infer_chain(node, first)
      when :times then infer_each(node, first)
      else node.children.zip(node.starts) { |child, start| infer(child, first + start) }
      end
    end

    def infer_each(node, first)
      return if node.child.step?

      first.step(first + node.steps - 1, node.child.steps) { |start| infer(node.child, start) }
    end

    def infer_chain(node, first)
      # The last step that exists; a child without steps begins where the next one does.
      last = @letters[first, node.steps].rindex(/[^o]/)
      index = node.starts.rindex { |start| start <= last }
      child = node.children[index]
      start = node.starts[index]
      if child.kind == :times
        size = child.child.steps
        start += (last - start) / size * size
        child = child.child
      end
      fill(first, start, "i")
      infer(child, first + start)
    end

    # Marks the steps of fallbacks that did not run.
    def skip(node, first)
      case node.kind
      when :step then nil
      when :times then skip_each(node, first)
      when :catch then skip_fallback(node, first)
      else node.children.zip(node.starts) { |child, start| skip(child, first + start) }
      end
    end

    def skip_each(node, first)
      return if node.child.step?

      first.step(first + node.steps - 1, node.child.steps) { |start| skip(node.child, start) }
    end

    def skip_fallback(node, first)
      count = node.steps - 1
      return skip(node.children.last, first + 1) unless "di".include?(@letters[first])

      @letters[first + 1, count] = @letters[first + 1, count].tr("oi", "c")
    end

    # Replaces the letter of open steps.
    def fill(first, count, letter)
      @letters[first, count] = @letters[first, count].tr("o", letter)
    end

    def mixed?(first, count)
      @letters[first, count].count("o").between?(1, count - 1)
    end
  end
end
